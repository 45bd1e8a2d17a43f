# SPDX-License-Identifier: Apache-2.0
"""Derived zones on a real kernel with four nodes, checked with tools that are not zoned's."""

import json
from typing import Any

import pytest

from tests.lab.following import CRASH, follow
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.programs import (
    anonymous_by_node,
    cgroup_of,
    hog_command,
    pids,
    private_by_numastat,
    start_hog,
)

MIB = 1 << 20
_IMPATIENT = "/run/systemd/system/zoned.service.d/50-impatient.conf"
SLICE = "/sys/fs/cgroup/zone.slice/zone-db.slice"


@pytest.fixture
def db(zoned_guest: Guest) -> Guest:
    """A guest with the zone `db`: 256 MiB on node 2."""
    zoned_guest.check(["zonectl", "create", "db", "--size", "256MiB", "--nodes", "2"])
    return zoned_guest


def ask(guest: Guest, *words: str) -> Any:
    """Return what zonectl prints as JSON."""
    return json.loads(guest.check(["zonectl", *words, "-o", "json"]))


def refused(guest: Guest, *words: str, status: int = 1) -> str:
    """Return the message of a command that must fail with this status."""
    done = guest.run(["zonectl", *words])
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done.stderr


def members(guest: Guest, zone: str = "db") -> int:
    """Return how many members a zone has."""
    return int(ask(guest, "show", zone)["members"])


def test_limits_are_what_systemd_and_the_kernel_show(db: Guest) -> None:
    assert db.read(f"{SLICE}/memory.max").strip() == str(256 * MIB)
    assert db.read(f"{SLICE}/memory.min").strip() == str(256 * MIB)
    assert db.read(f"{SLICE}/cpuset.mems.effective").strip() == "2"
    assert db.read(f"{SLICE}/cpuset.cpus.effective").strip() == "2"
    assert int(db.read("/sys/fs/cgroup/zone.slice/memory.min")) >= 256 * MIB
    shown = db.check(["systemctl", "show", "zone-db.slice", "-p", "MemoryMax,AllowedMemoryNodes"])
    assert set(shown.split()) == {f"MemoryMax={256 * MIB}", "AllowedMemoryNodes=2"}
    assert ask(db, "list") == [
        {
            "name": "db",
            "size": 256 * MIB,
            "backing": "reserve",
            "nodes": [2],
            "cpus": "2",
            "state": "active",
            "used": ask(db, "show", "db")["used"],
            "foreign": 0,
            "members": 0,
        }
    ]


def test_program_in_a_zone_has_its_pages_on_the_zones_node(db: Guest) -> None:
    hog = start_hog(db, 150, ["zonectl", "run", "db", "--"])
    assert set(anonymous_by_node(db, hog.pid)) == {2}
    by_numastat = private_by_numastat(db, hog.pid)
    assert by_numastat[2] >= 150
    detail = ask(db, "show", "db")
    assert [member["pid"] for member in detail["processes"]] == [hog.pid]
    assert detail["used"] >= 150 * MIB
    assert [usage["node"] for usage in detail["by_node"] if usage["used"] >= 150 * MIB] == [2]
    hog.process.kill()


def test_program_over_the_limit_is_ended_without_harm_to_others(db: Guest) -> None:
    db.check(["zonectl", "create", "web", "--size", "128MiB", "--nodes", "2"])
    neighbour = start_hog(db, 64, ["zonectl", "run", "web", "--"], name="neighbour")
    outsider = start_hog(db, 64, name="outsider")
    done = db.run(["zonectl", "run", "db", "--", *hog_command(300, "/run/never")])
    assert done.returncode in {-9, 137}
    assert not db.exists("/run/never")
    assert {neighbour.pid, outsider.pid} <= pids(db)
    assert ask(db, "show", "db")["events"]["oom_kill"] >= 1
    assert ask(db, "show", "web")["events"]["oom_kill"] == 0


def test_run_keeps_exit_status_and_environment(db: Guest) -> None:
    assert db.run(["zonectl", "run", "db", "--", "sh", "-c", "exit 42"]).returncode == 42
    assert db.run(["zonectl", "run", "db", "--", "sh", "-c", "kill -TERM $$"]).returncode == -15
    direct = db.check(["env"], env={"LC_ALL": "C", "ODD": "a b"})
    assert db.check(["zonectl", "run", "db", "env"], env={"LC_ALL": "C", "ODD": "a b"}) == direct


def test_a_program_ignores_in_a_zone_what_it_ignores_outside(db: Guest) -> None:
    asked, service = ("grep", "SigIgn", "/proc/self/status"), ("systemd-run", "-Pq", "--wait")
    run = ("zonectl", "run", "db", "--")
    # Services ignore SIGPIPE, commands of a shell do not.
    for before in ((), service):
        assert db.check([*before, *run, *asked]) == db.check([*before, *asked])
    assert db.check(asked) != db.check([*service, *asked])


def test_attached_process_ends_up_on_the_zones_node_and_is_foreign(db: Guest) -> None:
    hog = start_hog(db, 200, ["taskset", "-c", "0"])
    assert set(anonymous_by_node(db, hog.pid)) == {0}
    report = follow(db, "attach", "db", "--pid", hog.pid)
    assert report["processes"] == 1
    assert set(anonymous_by_node(db, hog.pid)) == {2}
    assert private_by_numastat(db, hog.pid)[2] >= 200
    assert "zone-db.slice" in cgroup_of(db, hog.pid)
    detail = ask(db, "show", "db")
    assert 195 * MIB <= detail["foreign"] <= 220 * MIB
    assert detail["used"] < 50 * MIB
    db.check(["zonectl", "detach", "db", "--pid", str(hog.pid)])
    assert "zone" not in cgroup_of(db, hog.pid)
    assert members(db) == 0


def test_service_started_in_the_slice_is_a_member(db: Guest) -> None:
    db.check(["systemd-run", "--slice=zone-db.slice", "--unit=inside", "sleep", "infinity"])

    def inside() -> list[dict[str, Any]]:
        return [each for each in ask(db, "show", "db")["processes"] if each["name"] == "sleep"]

    # It has another name until it is executed.
    (member,) = wait_until(inside, "a member")
    status = db.read(f"/proc/{member['pid']}/status")
    assert "Mems_allowed_list:\t2\n" in status
    # systemd cannot move a running service, so draining says which one is in the way.
    assert "[unit-in-zone] inside.service" in refused(db, "destroy", "db", "--drain", "root")
    assert member["pid"] in pids(db)
    db.check(["systemctl", "stop", "inside.service"])


def test_nothing_changes_for_members_when_daemons_restart(db: Guest) -> None:
    hog = start_hog(db, 100, ["zonectl", "run", "db", "--"])
    group = cgroup_of(db, hog.pid)
    for script in (
        "systemctl daemon-reload",
        "systemctl daemon-reexec",
        "systemctl restart zoned",
        CRASH,
    ):
        db.shell(script)
        assert ask(db, "show", "db")["state"] == "active", script
        assert cgroup_of(db, hog.pid) == group, script
        assert set(anonymous_by_node(db, hog.pid)) == {2}, script
        assert db.read(f"{SLICE}/memory.max").strip() == str(256 * MIB), script
        assert db.read(f"{SLICE}/memory.min").strip() == str(256 * MIB), script
        assert db.read(f"{SLICE}/cpuset.mems").strip() == "2", script
    assert members(db) == 1


@pytest.mark.on("trixie")
def test_a_daemon_that_is_stuck_is_replaced(db: Guest) -> None:
    hog = start_hog(db, 50, ["zonectl", "run", "db", "--"])
    # In place of the half minute of the unit.
    db.check(["mkdir", "-p", _IMPATIENT.rpartition("/")[0]])
    db.write(_IMPATIENT, "[Service]\nWatchdogSec=10\n")
    try:
        db.check(["systemctl", "daemon-reload"])
        db.check(["systemctl", "restart", "zoned"])
        stuck = shown(db, "zoned", "MainPID")
        db.check(["kill", "-STOP", stuck])
        wait_until(lambda: shown(db, "zoned", "MainPID") not in {"0", stuck}, "another daemon")
        wait_until(lambda: shown(db, "zoned", "ActiveState") == "active", "the other one answers")
    finally:
        db.check(["rm", _IMPATIENT])
        db.check(["systemctl", "daemon-reload"])
    assert "Watchdog timeout" in db.check(["journalctl", "-b", "-u", "zoned", "--no-pager"])
    assert ask(db, "show", "db")["state"] == "active"
    assert set(anonymous_by_node(db, hog.pid)) == {2}


def shown(guest: Guest, unit: str, name: str) -> str:
    """Return a property of a unit."""
    return guest.check(["systemctl", "show", "-P", name, unit]).strip()


@pytest.mark.on("trixie")
def test_a_zone_that_the_policy_drops_stays_for_its_members(zoned_guest: Guest) -> None:
    guest, path = zoned_guest, "/etc/zoned/zones.d/50-db.yaml"
    guest.write(path, "zones:\n  db:\n    size: 256MiB\n    nodes: [2]\n")
    guest.check(["zonectl", "reload"])
    assert ask(guest, "show", "db")["origin"] == "policy"
    hog = start_hog(guest, 50, ["zonectl", "run", "db", "--"])
    guest.check(["rm", path])
    assert "\ndb: " in guest.check(["zonectl", "reload"])
    shown = ask(guest, "show", "db")
    assert (shown["origin"], shown["members"]) == ("former-policy", 1)
    assert guest.read(f"{SLICE}/memory.max").strip() == str(256 * MIB)
    assert "zone-db.slice" in cgroup_of(guest, hog.pid)
    guest.check(["zonectl", "destroy", "db", "--drain", "root"])
    assert not guest.exists(SLICE)


def test_zone_is_whole_again_when_somebody_wrote_to_its_group(db: Guest) -> None:
    db.check(["systemctl", "set-property", "--runtime", "zone-db.slice", "MemoryMax=1G"])
    assert db.read(f"{SLICE}/memory.max").strip() == str(1024 * MIB)
    db.check(["zonectl", "reload"])
    assert db.read(f"{SLICE}/memory.max").strip() == str(256 * MIB)


def test_oversubscription_is_refused_with_numbers(db: Guest) -> None:
    message = refused(db, "create", "big", "--size", "900MiB", "--nodes", "2")
    assert message.startswith(
        "zonectl: [no-capacity] zone big asks for 900MiB, but node 2 can give"
    )
    assert "256MiB reserved" in message
    assert [zone["name"] for zone in ask(db, "list")] == ["db"]
    assert not db.exists("/sys/fs/cgroup/zone.slice/zone-big.slice")
    # A limit promises nothing, so it may be larger than what is left.
    db.check(["zonectl", "create", "big", "--size", "900MiB", "--nodes", "2", "--backing", "limit"])
    assert db.read("/sys/fs/cgroup/zone.slice/zone-big.slice/memory.min").strip() == "0"


def test_shrinking_below_use_fails_and_the_old_limit_stands(db: Guest) -> None:
    hog = start_hog(db, 200, ["zonectl", "run", "db", "--"])
    assert "[below-use] zone db uses" in refused(db, "resize", "db", "64MiB")
    assert hog.pid in pids(db)
    assert db.read(f"{SLICE}/memory.max").strip() == str(256 * MIB)
    assert db.read(f"{SLICE}/memory.high").strip() == "max"
    assert db.read(f"{SLICE}/memory.min").strip() == str(256 * MIB)
    assert ask(db, "list")[0]["size"] == 256 * MIB
    db.check(["zonectl", "resize", "db", "240MiB"])
    assert db.read(f"{SLICE}/memory.max").strip() == str(240 * MIB)
    db.check(["zonectl", "resize", "db", "300MiB"])
    assert db.read(f"{SLICE}/memory.max").strip() == str(300 * MIB)
    assert hog.pid in pids(db)


def test_shrinking_takes_page_cache_back(db: Guest) -> None:
    fill = "head -c 150M /dev/urandom > /var/tmp/cache; cat /var/tmp/cache > /dev/null; sync"
    db.check(["zonectl", "run", "db", "--", "sh", "-c", fill])
    assert int(db.read(f"{SLICE}/memory.current")) > 100 * MIB
    db.check(["zonectl", "resize", "db", "64MiB"])
    assert int(db.read(f"{SLICE}/memory.current")) <= 64 * MIB
    assert db.read(f"{SLICE}/memory.max").strip() == str(64 * MIB)
    assert db.read(f"{SLICE}/memory.high").strip() == "max"
    db.check(["rm", "/var/tmp/cache"])


def test_destroy_with_members_is_refused_and_draining_leaves_nothing(db: Guest) -> None:
    hog = start_hog(db, 50)
    home = cgroup_of(db, hog.pid)
    db.check(["zonectl", "attach", "db", "--pid", str(hog.pid)])
    runner = start_hog(db, 50, ["zonectl", "run", "db", "--"], name="runner")
    assert "[has-members] zone db has 2 members" in refused(db, "destroy", "db")
    assert members(db) == 2
    db.check(["zonectl", "destroy", "db", "--drain", "root"])
    assert {hog.pid, runner.pid} <= pids(db)
    assert cgroup_of(db, hog.pid) == home
    assert "zone" not in cgroup_of(db, runner.pid)
    left = db.check(["find", "/sys/fs/cgroup", "-name", "zone*", "-not", "-name", "zoned.service"])
    assert left == ""
    assert ask(db, "list") == []


def test_draining_into_another_zone_moves_the_pages(db: Guest) -> None:
    db.check(["zonectl", "create", "web", "--size", "128MiB", "--nodes", "3"])
    hog = start_hog(db, 60, ["zonectl", "run", "db", "--"])
    db.check(["zonectl", "destroy", "db", "--drain", "web"])
    assert set(anonymous_by_node(db, hog.pid)) == {3}
    assert members(db, "web") == 1


def test_killing_is_done_only_by_name(db: Guest) -> None:
    hog = start_hog(db, 30, ["zonectl", "run", "db", "--"])
    db.check(["zonectl", "destroy", "db", "--kill"])
    assert hog.process.wait().returncode == -9
    assert not db.exists(SLICE)


def test_unit_is_confined_now_and_starts_in_the_zone_next_time(zoned_guest: Guest) -> None:
    guest = zoned_guest
    # The unit pins itself to CPU 0, which a zone that confines CPUs to node 2 would refuse.
    guest.check(["zonectl", "create", "db", "--size", "256MiB", "--nodes", "2", "--cpus", "none"])
    command = hog_command(60, "/run/unit.ready")
    guest.write("/run/hog.py", command[2])
    guest.write(
        "/run/systemd/system/hog.service",
        "[Service]\nExecStart=/usr/bin/taskset -c 0 python3 /run/hog.py 60 /run/unit.ready\n"
        "ExecStopPost=/usr/bin/rm -f /run/unit.ready\n",
    )
    guest.shell("systemctl daemon-reload; systemctl start hog")
    wait_until(lambda: guest.exists("/run/unit.ready"), "the unit holds its memory")
    pid = _main_pid(guest)
    assert set(anonymous_by_node(guest, pid)) == {0}
    guest.check(["zonectl", "attach", "db", "--unit", "hog.service"])
    assert set(anonymous_by_node(guest, pid)) == {2}
    assert cgroup_of(guest, pid) == "/system.slice/hog.service"
    assert ask(guest, "show", "db")["units"] == ["hog.service"]
    assert "[has-members] hog.service is attached" in refused(guest, "destroy", "db")
    guest.check(["systemctl", "restart", "hog"])
    wait_until(lambda: guest.exists("/run/unit.ready"), "the unit holds its memory again")
    assert cgroup_of(guest, _main_pid(guest)) == "/zone.slice/zone-db.slice/hog.service"
    assert set(anonymous_by_node(guest, _main_pid(guest))) == {2}
    guest.check(["zonectl", "detach", "db", "--unit", "hog.service"])
    guest.check(["systemctl", "restart", "hog"])
    assert cgroup_of(guest, _main_pid(guest)) == "/system.slice/hog.service"
    guest.shell("systemctl stop hog; rm /run/systemd/system/hog.service; systemctl daemon-reload")


def _main_pid(guest: Guest) -> int:
    return int(shown(guest, "hog", "MainPID"))


def test_exclusive_cpus_are_nobody_elses(db: Guest) -> None:
    done = db.run(
        ["zonectl", "create", "rt", "--size", "64MiB", "--nodes", "3", "--exclusive-cpus"]
    )
    group = "/sys/fs/cgroup/zone.slice/zone-rt.slice"
    if done.returncode == 0:
        assert db.read(f"{group}/cpuset.cpus.partition").strip() == "root"
        assert "3" not in db.read("/sys/fs/cgroup/cpuset.cpus.effective")
        db.check(["zonectl", "destroy", "rt"])
        assert db.read("/sys/fs/cgroup/cpuset.cpus.effective").strip() == "0-3"
    else:
        # What this kernel cannot do is said, and nothing is left of the attempt.
        assert "[unsupported]" in done.stderr, done.stderr
        assert not db.exists(group)
