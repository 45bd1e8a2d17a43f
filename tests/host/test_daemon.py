# SPDX-License-Identifier: Apache-2.0
"""The daemon and zonectl on this machine: programs in zones, and zones that outlive the daemon."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.daemon import (
    HOLD,
    LIMIT,
    MIB,
    Daemon,
    cgroup_of,
    groups_left,
    holding,
    limits_of,
)

pytestmark = pytest.mark.host

LINE = ["name", "size", "backing", "nodes", "cpus", "state", "used", "foreign", "members"]


@pytest.fixture
def db(daemon: Daemon) -> Daemon:
    daemon.call("Zones.Create", name="db", size=256 * MIB)
    return daemon


def run(daemon: Daemon, *command: str, zone: str = "db") -> list[str]:
    return [*daemon.words(), "run", zone, "--", *command]


def test_list_and_show_have_the_promised_fields(db: Daemon) -> None:
    with holding(8, run(db)):
        (line,) = db.zones()
        assert list(line) == LINE
        assert (line["name"], line["size"], line["backing"]) == ("db", 256 * MIB, "reserve")
        assert (line["nodes"], line["state"], line["members"]) == ([0], "degraded", 1)
        assert line["used"] >= 8 * MIB
        assert isinstance(line["foreign"], int)
        shown = db.show("db")
    assert list(shown)[: len(LINE)] == LINE
    assert {"peak", "pressure", "events", "alerts", "limits", "by_node"} <= set(shown)
    assert {"oom", "max", "high"} <= set(shown["events"])
    assert shown["limits"]["max"] == 256 * MIB
    assert [alert["code"] for alert in shown["alerts"]] == ["weak-protection"]
    assert limits_of("db")["memory.limit_in_bytes"] == str(256 * MIB)


def test_status_tells_of_the_machine(daemon: Daemon) -> None:
    assert "all is well" in daemon.well("status")
    daemon.well("create", "db", "--size", "64MiB", "--backing", "limit")
    assert "1 zone," in daemon.well("status")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("true", 0), ("kill -TERM $$", -15), ("kill -9 $$", -9)]
)
def test_run_keeps_the_status(db: Daemon, script: str, status: int) -> None:
    assert subprocess.run(run(db, "sh", "-c", script), check=False, timeout=LIMIT).returncode == (
        status
    )


def output(command: list[str], environment: dict[bytes, bytes]) -> bytes:
    found = subprocess.run(
        command,
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        check=True,
        timeout=LIMIT,
    )
    assert found.stderr == b""
    return found.stdout


@pytest.mark.parametrize(
    "more",
    [
        {},
        {b"LANG": b"C", b"EMPTY": b"", b"ODD": b"\xff=\n", b"Z": b"1", b"A": b"2"},
        {b"LC_CTYPE": b"C"},
        {b"LC_ALL": b"C", b"PYTHONUTF8": b"0"},
        {b"PYTHONDONTWRITEBYTECODE": b"1"},
    ],
)
def test_run_keeps_the_environment(db: Daemon, more: dict[bytes, bytes]) -> None:
    environment = {b"PATH": os.environb[b"PATH"], **more}
    look = ["cat", "/proc/self/environ"]
    assert output(run(db, *look), environment) == output(look, environment)


def test_run_keeps_signals_descriptors_and_the_rest(db: Daemon) -> None:
    environment = {b"PATH": os.environb[b"PATH"]}
    # Not SigQ: it counts the queued signals of all that the user runs. Its limit is in `limits`.
    for look in (
        [
            "grep",
            "-E",
            "^(Sig[^Q]|Shd|Cap|NoNewPrivs|Seccomp:|Umask|Uid|Gid|Groups)",
            "/proc/self/status",
        ],
        ["cat", "/proc/self/limits", "/proc/self/oom_score_adj"],
        ["sh", "-c", "ls /proc/self/fd | wc -l; pwd"],
    ):
        assert output(run(db, *look), environment) == output(look, environment)


def test_run_keeps_the_terminal(db: Daemon) -> None:
    script = (
        "test -t 0 && test -t 1 && test -t 2 && tty && stty size;"
        "trap 'echo caught; exit 5' INT; read line; echo got $line; read line"
    )
    master, slave = os.openpty()
    # A shell cannot trap what was ignored when it began, as a runner in the background has it.
    usual = ["env", "--default-signal=INT,QUIT,HUP"]
    command = [*usual, "setsid", "--ctty", "--wait", *run(db, "sh", "-c", script)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    name = os.ttyname(slave)
    os.close(slave)
    try:
        os.write(master, b"hello\n")
        seen = read_until(master, b"got hello")
        assert name.encode() in seen
        os.write(master, b"\x03")
        read_until(master, b"caught")
        assert process.wait(LIMIT) == 5
    finally:
        process.kill()
        process.wait()
        os.close(master)


def read_until(descriptor: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        assert select.select([descriptor], [], [], LIMIT)[0], f"no {text!r} after {seen!r}"
        seen += os.read(descriptor, 4096)
    return seen


def test_run_by_its_own_name(db: Daemon) -> None:
    """What runs is the very process that was zonectl."""
    process = subprocess.Popen(run(db, "sh", "-c", "echo $$"), stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=LIMIT)
    assert int(out) == process.pid


def test_run_of_what_is_not_there(db: Daemon) -> None:
    found = db.zonectl("run", "db", "--", "no-such-command")
    assert (found.returncode, found.stderr) == (127, "zonectl: no-such-command: not found\n")


def test_a_program_is_ended_at_the_limit_and_others_are_not(db: Daemon) -> None:
    db.well("create", "web", "--size", "64MiB")
    with holding(8, run(db)) as inside, holding(8, run(db, zone="web")) as beside:
        with holding(300) as outside:
            eater = subprocess.run(
                run(db, sys.executable, "-c", HOLD, "300"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=LIMIT,
            )
            assert (eater.returncode, eater.stdout) == (-signal.SIGKILL, b"")
            assert [each.poll() for each in (inside, beside, outside)] == [None] * 3
        shown = db.show("db")
        assert shown["events"]["oom_kill"] >= 1
        assert shown["peak"] <= 256 * MIB
        db.well("reset")


def test_a_running_process_comes_and_goes(db: Daemon) -> None:
    with holding(32) as process:
        before = cgroup_of(process.pid)
        db.well("attach", "db", "--pid", str(process.pid))
        assert cgroup_of(process.pid) != before
        shown = db.show("db")
        assert [member["pid"] for member in shown["processes"]] == [process.pid]
        assert shown["foreign"] >= 30 * MIB
        assert shown["processes"][0]["anonymous"] >= 32 * MIB
        db.well("detach", "db", "--pid", str(process.pid))
        assert cgroup_of(process.pid) == before


def test_a_zone_with_members_is_drained_to_where_they_came_from(db: Daemon) -> None:
    with holding(1) as attached, holding(1, run(db)) as ran:
        before = cgroup_of(attached.pid)
        db.well("attach", "db", "--pid", str(attached.pid))
        assert db.refused("destroy", "db") == "has-members"
        assert db.show("db")["members"] == 2
        db.well("destroy", "db", "--drain", "root")
        assert cgroup_of(attached.pid) == cgroup_of(ran.pid) == before == cgroup_of(os.getpid())
        assert groups_left() == []
        assert (attached.poll(), ran.poll()) == (None, None)


def test_children_are_drained_beside_their_parents(db: Daemon) -> None:
    script = "sleep 1000 & echo $!; read line"
    process = subprocess.Popen(
        run(db, "sh", "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert cgroup_of(child) == cgroup_of(process.pid) != cgroup_of(os.getpid())
        db.well("destroy", "db", "--drain", "root")
        assert cgroup_of(child) == cgroup_of(process.pid) == cgroup_of(os.getpid())
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_drain_into_another_zone_and_kill(db: Daemon) -> None:
    db.well("create", "web", "--size", "64MiB")
    with holding(1, run(db)) as process:
        db.well("destroy", "db", "--drain", "web")
        assert db.show("web")["members"] == 1
        assert process.poll() is None
        db.well("destroy", "web", "--kill")
        assert process.wait(LIMIT) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_zones_outlive_the_daemon(db: Daemon, number: signal.Signals) -> None:
    with holding(8, run(db)) as ran, holding(1) as attached:
        db.well("attach", "db", "--pid", str(attached.pid))
        pids = (ran.pid, attached.pid)
        before = [cgroup_of(pid) for pid in pids], limits_of("db"), db.zones()
        status = db.end(number)
        assert status == (-number if number is signal.SIGKILL else 0)
        assert ([cgroup_of(pid) for pid in pids], limits_of("db")) == before[:2]
        assert db.refused("list") == "no-daemon"
        db.start()
        after = [cgroup_of(pid) for pid in pids], limits_of("db"), db.zones()
        for zone in (*before[2], *after[2]):
            zone["used"] = "some"
        assert after == before
        db.well("destroy", "db", "--drain", "root")
        assert cgroup_of(attached.pid) == cgroup_of(os.getpid())


def test_a_daemon_that_is_stuck_tells_where(daemon: Daemon) -> None:
    """SIGABRT is what systemd's watchdog ends it with."""
    assert daemon.end(signal.SIGABRT) == -signal.SIGABRT
    told = daemon.log().partition("Fatal Python error: Aborted")[2]
    assert "zoned/daemon/main.py" in told


def test_a_zone_of_the_policy_is_there_from_the_start(daemon: Daemon) -> None:
    (daemon.policy / "10-a.yaml").write_text("zones:\n  fixed:\n    size: 64MiB\n")
    assert daemon.end() == 0
    daemon.start()
    assert [zone["name"] for zone in daemon.zones()] == ["fixed"]
    assert daemon.refused("destroy", "fixed") == "in-policy"
    assert daemon.process is not None
    (daemon.policy / "10-a.yaml").write_text("zones:\n  other:\n    size: 64MiB\n")
    daemon.well("reload")
    assert [zone["name"] for zone in daemon.zones()] == ["other"]


def test_shrinking_makes_room_or_changes_nothing(db: Daemon) -> None:
    with holding(64, run(db)):
        before = limits_of("db")
        assert db.refused("resize", "db", "32MiB") == "below-use"
        assert limits_of("db") == before
        assert db.show("db")["state"] == "degraded"
        db.well("resize", "db", "128MiB")
        assert limits_of("db")["memory.limit_in_bytes"] == str(128 * MIB)
