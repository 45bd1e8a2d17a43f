# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# Where scripts/up puts things, so that scripts/down finds them. Sourced after lib.sh.

venv=/opt/zoned
zonectl=/usr/local/bin/zonectl
zoned=/usr/local/sbin/zoned
manuals=/usr/local/share/man
vendor=/usr/lib/zoned
# /etc belongs to the administrator, /usr/lib to Debian's packages; /usr/local/lib is searched by
# systemd for what was installed by hand, so `systemctl edit` and overrides in /etc still win.
units=/usr/local/lib/systemd/system
tmpfiles=/usr/local/lib/tmpfiles.d/zoned.conf
sysusers=/usr/local/lib/sysusers.d/zoned.conf
rules=/usr/local/lib/udev/rules.d/70-zoned-dma.rules
pid_file=/run/zoned/zoned.pid
daemon_log=/var/log/zoned.log

PATH=/usr/local/bin:/usr/local/sbin:$PATH:/usr/sbin:/sbin

# Print the pid of the daemon that scripts/up started without systemd. A pid file outlives its
# process, and the number may be another's by now, so the command line is asked too.
background_pid() {
    local pid words=()
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    mapfile -d '' -t words 2>/dev/null <"/proc/$pid/cmdline" || return 1
    [[ ${words[1]:-} == "$venv/bin/zoned" && ${words[2]:-} == run ]] || return 1
    printf '%s\n' "$pid"
}

stop_background() {
    local pid
    pid=$(background_pid) || return 0
    kill -TERM "$pid"
    if ! await 30 background_is_gone; then
        say "process $pid did not end within 30 s"
        return 1
    fi
    rm -f "$pid_file"
}

background_is_gone() { ! background_pid; }

# udev looks for changed rules by itself, but only with the next event, and not more than every few
# seconds.
reload_udev() {
    if command -v udevadm && [[ -S /run/udev/control ]]; then
        udevadm control --reload
    fi
}
