# SPDX-License-Identifier: Apache-2.0
"""Members and zones that change nodes: attach, detach, move and drain move their memory."""

from collections.abc import Iterator

import pytest

from tests.lab.following import CRASH, begin, follow, is_done, show, wait_for, wait_for_mib
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.loads import MIB, Load, Watch, check_intact, resident, start_load
from tests.lab.programs import cgroup_of
from tests.lab.test_zones import SLICE, ask, members

_ZONES = "/sys/fs/cgroup/zone.slice"
_HOME = "/sys/fs/cgroup/lab-home"
_AT_HOME = ("sh", "-c", f'echo $$ > {_HOME}/cgroup.procs; exec "$@"', "sh")
_IN_ZONE = ("zonectl", "run", "db", "--")
_WATCHED = [f"{SLICE}/cpuset.mems", f"{SLICE}/memory.max", f"{SLICE}/memory.min"]
_ZONES_MIN = f"{_ZONES}/memory.min"


@pytest.fixture
def db(settled_guest: Guest) -> Guest:
    """A guest with the zone `db`: 384 MiB on node 2."""
    settled_guest.check(
        ["zonectl", "create", "db", "--size", "384MiB", "--nodes", "2", "--cpus", "none"]
    )
    return settled_guest


@pytest.fixture
def home(db: Guest) -> Iterator[Guest]:
    """The guest with the zone, and with a cgroup of somebody's that is confined to node 1."""
    db.check(["mkdir", _HOME])
    db.write(f"{_HOME}/cpuset.mems", "1")
    yield db
    db.reclaim()
    db.check(["rmdir", _HOME])


def nodes_of(text: str) -> set[int]:
    """Read a list of single nodes, as in cpuset.mems."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def attach_by_hand(guest: Guest, load: Load) -> None:
    """Put a load into a cgroup on node 3 as one does without zoned: the kernel moves its pages."""
    guest.shell("mkdir /sys/fs/cgroup/lab-hand; echo 3 > /sys/fs/cgroup/lab-hand/cpuset.mems")
    guest.write("/sys/fs/cgroup/lab-hand/cgroup.procs", str(load.pid))


def test_attach_does_not_hold_up_others(db: Guest) -> None:
    """Somebody else makes cgroups all the time; how long that took is printed."""
    db.check(["mkdir", "/sys/fs/cgroup/lab-other"])
    load = start_load(db, "small", 256, node=1)
    watch = Watch(db, "mkdir", ["/sys/fs/cgroup/lab-other/new"])
    job = follow(db, "attach", "db", "--pid", load.pid)
    ours = watch.end()
    assert is_done(job), job
    assert load.by_node() == {2: 256}
    assert "zone-db.slice" in cgroup_of(db, load.pid)
    assert job["outcomes"]["moved"] >= 256 * MIB
    assert 256 * MIB <= job["foreign"] < 280 * MIB

    watch = Watch(db, "mkdir", ["/sys/fs/cgroup/lab-other/new"])
    attach_by_hand(db, load)
    theirs = watch.end()
    assert load.by_node() == {3: 256}
    check_intact(load)
    print("\nlongest wait of a mkdir in another cgroup during an attach of 256 MiB:")
    for name, waits in (("zoned", ours), ("by hand", theirs)):
        longest, median = waits["longest"] * 1000, waits["median"] * 1000
        print(f"{name}: {longest:.1f} ms (median {median:.2f} ms of {waits['number']:.0f})")
    db.shell("rmdir /sys/fs/cgroup/lab-other /sys/fs/cgroup/lab-hand")


@pytest.mark.on("bookworm")
def test_detach_takes_the_pages_home(home: Guest) -> None:
    load = start_load(home, "small", 64, node=1, before=_AT_HOME)
    words = ("db", "--pid", load.pid)

    survey = ask(home, "attach", *map(str, words), "--dry-run")
    assert survey["fits"]
    assert 64 <= survey["to_move"] // MIB < 96
    assert load.by_node() == {1: 64}
    assert members(home) == 0

    follow(home, "attach", *words)
    assert load.by_node() == {2: 64}
    assert home.read(f"{SLICE}/cpuset.mems").strip() == "2"
    job = follow(home, "detach", *words)
    assert load.by_node() == {1: 64}
    assert job["outcomes"]["moved"] >= 64 * MIB
    assert cgroup_of(home, load.pid) == "/lab-home"
    assert home.read(f"{_HOME}/cpuset.mems").strip() == "1"
    assert members(home) == 0
    check_intact(load)


def test_zone_moves_with_its_members_and_is_never_without_limits(home: Guest) -> None:
    inside = start_load(home, "thp", 32, node=2, before=_IN_ZONE, name="inside")
    came = start_load(home, "small", 32, "--write", node=1, before=_AT_HOME, name="came")
    follow(home, "attach", "db", "--pid", came.pid)

    survey = ask(home, "move", "db", "--nodes", "3", "--dry-run")
    assert survey["processes"] == 2
    assert 64 <= survey["to_move"] // MIB < 112
    watch = Watch(home, "files", [*_WATCHED, _ZONES_MIN])
    job = follow(home, "move", "db", "--nodes", "3", "--rate", 16)
    states = [state for state, _ in watch.end()]
    assert is_done(job), job
    assert job["processes"] == 2

    assert inside.by_node() == came.by_node() == {3: 32}
    assert {state[1] for state in states} == {str(384 * MIB)}
    assert {state[2] for state in states} == {str(384 * MIB)}
    assert min(int(state[3]) for state in states) >= 384 * MIB
    ways = [nodes_of(state[0]) for state in states]
    assert (ways[0], ways[-1]) == ({2}, {3})
    assert {2, 3} in ways
    zone = ask(home, "show", "db")
    assert (zone["nodes"], zone["state"], zone["members"]) == ([3], "active", 2)
    (at,) = (usage["node"] for usage in zone["by_node"] if usage["used"] >= 32 * MIB)
    assert at == 3
    check_intact(inside)
    check_intact(came)


@pytest.mark.on("bookworm")
def test_zone_whose_move_is_cancelled_or_cut_off_is_whole(db: Guest) -> None:
    load = start_load(db, "small", 128, node=2, before=_IN_ZONE)
    words = ("move", "db", "--nodes", "3")

    number = begin(db, *words, "--rate", 3)
    wait_for_mib(lambda: resident(db, load.pid), 3, 8)
    assert nodes_of(db.read(f"{SLICE}/cpuset.mems")) == {2, 3}
    db.check(["zonectl", "job", str(number), "cancel"])
    assert wait_for(db, number, status=1)["state"] == "cancelled"
    assert set(load.by_node()) == {2, 3}
    wait_until(lambda: ask(db, "show", "db")["alerts"], "the daemon has looked again")
    check_limits(db, {2, 3}, alert="half-moved")

    number = begin(db, *words, "--rate", 12)
    wait_for_mib(lambda: resident(db, load.pid), 3, 40)
    db.shell(CRASH)
    assert show(db, number)["id"] == number
    assert is_done(wait_for(db, number))
    assert load.by_node() == {3: 128}
    check_limits(db, {3})
    check_intact(load)


def check_limits(guest: Guest, nodes: set[int], alert: str | None = None) -> None:
    """Check that a zone is what it says it is, on nodes out of these."""
    zone = ask(guest, "show", "db")
    assert zone["state"] == ("degraded" if alert else "active"), zone
    assert [each["code"] for each in zone["alerts"]] == ([alert] if alert else [])
    assert set(zone["nodes"]) <= nodes, zone
    mems, *limits = (guest.read(path).strip() for path in _WATCHED)
    assert nodes_of(mems) <= nodes
    assert limits == [str(384 * MIB), str(384 * MIB)]


@pytest.mark.on("bookworm")
@pytest.mark.parametrize("target", ["root", "web"])
def test_drain_moves_the_pages_with_the_members(home: Guest, target: str) -> None:
    home.check(["zonectl", "create", "web", "--size", "128MiB", "--nodes", "3", "--cpus", "none"])
    load = start_load(home, "small", 64, node=1, before=_AT_HOME)
    follow(home, "attach", "db", "--pid", load.pid)
    assert load.by_node() == {2: 64}

    job = follow(home, "destroy", "db", "--drain", target)
    assert job["outcomes"]["moved"] >= 64 * MIB
    assert load.by_node() == ({1: 64} if target == "root" else {3: 64})
    group = "/lab-home" if target == "root" else "zone-web.slice"
    assert group in cgroup_of(home, load.pid)
    assert not home.exists(SLICE)
    check_intact(load)
