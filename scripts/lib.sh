# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the scripts share. Sourced after `set -euo pipefail`, with the checkout as the current folder.

log=${log:-/dev/null}

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() {
    ((EUID == 0)) || fail "needs root: run \`sudo $0\`"
}

# Run a command with its output in the log, and print one line about it. A subshell outside of any
# condition, because `set -e` does not act inside `if` and `||`.
step() {
    local what=$1 status
    shift
    printf '  %-58s ' "$what"
    printf '\n== %s: %s\n' "$what" "$*" >>"$log"
    set +e
    (
        set -e
        "$@"
    ) >>"$log" 2>&1 </dev/null
    status=$?
    set -e
    if ((status == 0)); then
        printf 'ok\n'
        return
    fi
    printf 'FAILED\n'
    printf '%s: failed (status %d): %s\n' "${0##*/}" "$status" "$what" >&2
    if [[ -f $log ]]; then
        printf 'The end of %s:\n' "$log" >&2
        tail -n 12 "$log" | sed 's/^/    /' >&2
    fi
    exit 1
}

# Wait until a command succeeds: await SECONDS COMMAND…
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

is_installed() {
    [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == "install ok installed" ]]
}

# Install those of the Debian packages that are missing. The lists are fetched only then.
debian_install() {
    local missing=() package
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null ||
        fail "these packages are missing, and there is no apt-get: ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"
}

can_make_venv() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Print the Python to use: the newest of the system's own that is new enough and can make virtual
# environments, else the first on PATH if that can.
find_python() {
    local python
    for python in $(printf '%s\n' /usr/bin/python3.[1-9][0-9] | sort -rV) \
        /usr/bin/python3 "$(command -v python3 || true)"; do
        if [[ -x $python ]] && can_make_venv "$python"; then
            printf '%s\n' "$python"
            return
        fi
    done
    return 1
}

ensure_python() {
    find_python >/dev/null || debian_install python3-venv
    find_python >/dev/null || fail "needs Python 3.11 or newer with the venv module"
}

# Make or repair a virtual environment and install what a lock file names: make_venv FOLDER LOCK.
# pip's own settings (PIP_NO_INDEX, PIP_FIND_LINKS, pip.conf …) are left to act.
make_venv() {
    local venv=$1 lock=$2 stamp=$1/.lock
    # An upgrade of the system's Python leaves an environment behind that no longer starts.
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        "$(find_python)" -m venv --clear "$venv"
    fi
    if ! cmp --silent "$lock" "$stamp"; then
        "$venv/bin/python" -m pip install --require-hashes --requirement "$lock"
        cp "$lock" "$stamp"
    fi
}

# Make the checkout's own environment, for tests, checks and builds.
make_own_venv() {
    mkdir -p build
    log=build/setup.log
    : >"$log"
    step "Python with virtual environments" ensure_python
    step "libraries from tests/requirements.lock in .venv" make_venv .venv tests/requirements.lock
}

# flit_core is in the lock, so that the build needs no environment (and no network) of its own.
install_project() {
    "$1/bin/python" -m pip install --no-deps --no-build-isolation --force-reinstall .
}
