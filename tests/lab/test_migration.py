# SPDX-License-Identifier: Apache-2.0
"""Moving memory of every kind on a real kernel, checked with tools that are not zoned's."""

import json
from collections.abc import Iterator

import pytest

from tests.lab.following import PARTIAL, Job, begin, follow, is_done, wait_for, wait_for_mib
from tests.lab.harness.guest import Guest
from tests.lab.loads import (
    MIB,
    Load,
    alike,
    check_intact,
    free_mib,
    load_of,
    numastat,
    resident,
    set_pools,
    start_load,
)
from tests.lab.test_zones import ask, refused

_GROUP = "/sys/fs/cgroup/lab-load"
_IN_GROUP = ("sh", "-c", f'echo $$ > {_GROUP}/cgroup.procs; exec "$@"', "sh")
_SLOWLY = ("--rate", 8)


@pytest.fixture
def group(settled_guest: Guest) -> Iterator[Guest]:
    """The guest with an empty cgroup that is nobody's."""
    settled_guest.check(["mkdir", _GROUP])
    yield settled_guest
    settled_guest.reclaim()
    settled_guest.check(["rmdir", _GROUP])


def check_moved(load: Load, job: Job, *, target: int = 2) -> None:
    """Check by all means that all of a load is where it should be, and whole."""
    assert is_done(job), job
    assert load.by_node() == {target: load.size // MIB}
    assert numastat(load.guest, load.pid)[target] >= load.size // MIB
    assert job["left"] == 0, job
    assert job["outcomes"]["moved"] >= load.size, job


def agrees(survey: Job, load: Load) -> dict[int, dict[str, int]]:
    """Return bytes by node and kind; they must be what numa_maps says of the process."""
    found = {each["node"]: each for each in survey["by_node"]}
    kinds = ("anonymous", "file", "thp", "hugetlb")
    sums = {node: sum(each[kind] for kind in kinds) for node, each in found.items()}
    numa_maps = resident(load.guest, load.pid)
    assert all(alike(sums.get(node, 0), numa_maps.get(node, 0)) for node in range(4)), survey
    return found


_HALF_A_GIGABYTE = [("small", "anonymous"), ("thp", "thp"), ("hugetlb", "hugetlb")]


@pytest.mark.parametrize(("kind", "counted"), _HALF_A_GIGABYTE)
def test_half_a_gigabyte(settled_guest: Guest, kind: str, counted: str) -> None:
    """Moves by `migrate`; a dry run tells the truth before, and changes nothing."""
    if kind == "hugetlb":
        set_pools(settled_guest, 256, 1, 2)
    load = start_load(settled_guest, kind, 512, node=1)
    huge = settled_guest.shell(f"grep -E '^(AnonHuge|Private_Huge)' /proc/{load.pid}/smaps_rollup")
    words = ("migrate", "--pid", str(load.pid), "--from", "1", "--to", "2")

    before = resident(settled_guest, load.pid)
    survey = ask(settled_guest, *words, "--dry-run")
    assert agrees(survey, load)[1][counted] >= load.size
    assert alike(survey["to_move"], before[1])
    assert alike(sum(survey["stays"].values()), 0)
    assert survey["fits"]
    assert alike(resident(settled_guest, load.pid)[1], before[1])

    job = follow(settled_guest, *words)
    check_moved(load, job)
    after = resident(settled_guest, load.pid)
    assert alike(job["outcomes"]["moved"], after[2] - before.get(2, 0), before[1])
    now = settled_guest.shell(f"grep -E '^(AnonHuge|Private_Huge)' /proc/{load.pid}/smaps_rollup")
    assert now == huge
    check_intact(load)
    print(f"\n512 MiB {kind}: {job['ended'] - job['started']:.1f} s, expected {survey['seconds']},")
    print(f"longest call {job['longest_call'] * 1000:.1f} ms")


_OTHER_KINDS = [("locked", 64, 0), ("shared-file", 0, 64), ("private-file", 32, 32)]


@pytest.mark.on("bookworm")
@pytest.mark.parametrize(("kind", "anonymous", "file"), _OTHER_KINDS)
def test_other_kinds(settled_guest: Guest, kind: str, anonymous: int, file: int) -> None:
    load = start_load(settled_guest, kind, 64, node=1)
    words = ("migrate", "--pid", str(load.pid), "--from", "1", "--to", "2")

    survey = ask(settled_guest, *words, "--dry-run")
    found = agrees(survey, load)[1]
    assert anonymous <= found["anonymous"] // MIB < anonymous + 16
    assert file <= found["file"] // MIB < file + 16
    assert survey["locked"] // MIB == (64 if kind == "locked" else 0)

    check_moved(load, follow(settled_guest, *words))
    if kind == "locked":
        status = settled_guest.read(f"/proc/{load.pid}/status")
        assert f"VmLck:\t   {load.size >> 10} kB" in status
    check_intact(load)


def test_shared_memory_moves_with_all_its_users_or_not_at_all(group: Guest) -> None:
    load = start_load(group, "shared", 64, "--children", 1, node=1, before=_IN_GROUP)
    child = Load(guest=group, name="child", pid=load.children[0], start=load.start, size=load.size)
    one = ("migrate", "--pid", load.pid, "--from", "1", "--to", "2")

    stays = ask(group, *map(str, one), "--dry-run")["stays"]
    assert 64 <= stays["shared"] // MIB < 80
    left = follow(group, *one, status=PARTIAL)
    assert left["state"] == "partial"
    assert left["left_behind"] == left["outcomes"]["shared"]
    assert alike(left["outcomes"]["shared"], stays["shared"])
    assert load.by_node() == {1: 64}

    assert (
        follow(group, "migrate", "--cgroup", "/lab-load", "--from", "1", "--to", "2")["processes"]
        == 2
    )
    assert load.by_node() == child.by_node() == {2: 64}
    follow(group, "migrate", "--pid", load.pid, "--from", "2", "--to", "3", "--shared")
    assert load.by_node() == child.by_node() == {3: 64}
    check_intact(load)


def test_pinned_pages_are_left_and_named(settled_guest: Guest) -> None:
    load = start_load(settled_guest, "small", 64, "--pin", 16, node=1)
    words = ["zonectl", "migrate", "--pid", str(load.pid), "--from", "1", "--to", "2"]
    done = settled_guest.run(words)
    assert done.returncode == PARTIAL, done
    assert "16MiB" in done.stderr, done
    assert "pinned" in done.stderr, done
    assert load.by_node() == {1: 16, 2: 48}, load.pinned

    again = follow(settled_guest, *words[1:], status=PARTIAL)
    assert alike(again["left_behind"], again["outcomes"]["pinned"], 16 * MIB), load.pinned
    assert alike(again["outcomes"].get("moved", 0), 0)
    check_intact(load)


@pytest.mark.on("bookworm")
def test_target_without_room_is_refused_before_a_page_moves(settled_guest: Guest) -> None:
    settled_guest.check(["zonectl", "create", "db", "--size", "512MiB", "--nodes", "2"])
    load = start_load(settled_guest, "small", 256, node=1)
    inside = start_load(
        settled_guest, "small", 256, node=2, name="inside", before=["zonectl", "run", "db", "--"]
    )
    # Pages of a pool can neither be reclaimed nor moved out of the way.
    set_pools(settled_guest, (free_mib(settled_guest, 3) - 150) // 2, 3)
    before, jobs = resident(settled_guest, load.pid), ask(settled_guest, "jobs")

    for words in (
        ("migrate", "--pid", str(load.pid), "--from", "1", "--to", "3"),
        ("move", "db", "--nodes", "3"),
    ):
        message = refused(settled_guest, *words)
        assert "[no-room]" in message, message
        assert "node 3" in message, message
        assert message.count("MiB") >= 3, message
        done = settled_guest.run(["zonectl", *words, "--dry-run", "-o", "json"])
        assert done.returncode == 1, done
        survey = json.loads(done.stdout)
        assert not survey["fits"]
    (room,) = survey["rooms"]
    assert room["room"] < survey["to_move"]
    assert abs(room["free"] // MIB - free_mib(settled_guest, 3)) < 64

    assert alike(resident(settled_guest, load.pid)[1], before[1])
    assert inside.by_node() == {2: 256}
    assert {job["state"] for job in ask(settled_guest, "jobs") if job not in jobs} <= {"failed"}
    assert ask(settled_guest, "show", "db")["nodes"] == [2]


@pytest.mark.on("bookworm")
@pytest.mark.parametrize("kind", ["small", "thp"])
def test_writer_keeps_its_data_and_is_not_held_up(settled_guest: Guest, kind: str) -> None:
    """A writer that touches all its pages; migratepages(8) on the same load is printed beside."""
    load = start_load(settled_guest, kind, 128, "--write", node=1)
    load.lap()
    job = follow(settled_guest, "migrate", "--pid", load.pid, "--from", "1", "--to", "2")
    ours = load.lap()
    check_moved(load, job)
    idle = load.lap()
    settled_guest.check(["migratepages", str(load.pid), "2", "3"])
    theirs = load.lap()
    assert load.by_node() == {3: 128}

    report = load.end()
    assert report["intact"], report
    assert report["checksum"] == report["wanted_checksum"]
    assert report["rounds"] >= 2
    print(f"\nlongest pause of a writer ({kind}): {ours * 1000:.1f} ms with zonectl migrate,")
    print(f"{theirs * 1000:.1f} ms with migratepages, {idle * 1000:.1f} ms with neither;")
    print(f"longest call of zoned {job['longest_call'] * 1000:.1f} ms")


@pytest.mark.on("bookworm")
def test_program_that_exits_half_way(settled_guest: Guest) -> None:
    load = start_load(settled_guest, "small", 128, "--then", "exit", node=1)
    number = begin(
        settled_guest, "migrate", "--pid", load.pid, "--from", "1", "--to", "2", *_SLOWLY
    )
    wait_for_mib(lambda: resident(settled_guest, load.pid), 2, 8)
    load.send("then")
    job = wait_for(settled_guest, number)
    assert is_done(job), job
    assert job["gone"] == 1
    assert job["left_behind"] == 0
    assert 8 * MIB <= job["outcomes"]["moved"] < 128 * MIB


@pytest.mark.on("bookworm")
def test_program_that_execs_half_way(settled_guest: Guest) -> None:
    load = start_load(settled_guest, "small", 64, "--then", "exec", node=1)
    number = begin(
        settled_guest, "migrate", "--pid", load.pid, "--from", "1", "--to", "2", *_SLOWLY
    )
    wait_for_mib(lambda: resident(settled_guest, load.pid), 2, 8)
    load.send("then")
    after = load_of(settled_guest, "load.execed")
    assert after.pid == load.pid
    check_moved(after, wait_for(settled_guest, number))
    check_intact(after)


@pytest.mark.on("bookworm")
def test_unit_that_forks_half_way(settled_guest: Guest) -> None:
    load = start_load(
        settled_guest,
        "small",
        64,
        "--then",
        "fork",
        node=1,
        before=["systemd-run", "--quiet", "--unit=lab-load", "--collect"],
    )
    words = ("migrate", "--unit", "lab-load.service", "--from", "1", "--to", "2")
    number = begin(settled_guest, *words, *_SLOWLY)
    wait_for_mib(lambda: resident(settled_guest, load.pid), 2, 8)
    load.send("then")
    child = load_of(settled_guest, "load.forked")
    job = wait_for(settled_guest, number)
    assert load.by_node() == child.by_node() == {2: 64}
    check_moved(load, job)
    assert job["processes"] == 2
    check_intact(child)
    check_intact(load)


@pytest.mark.on("bookworm")
def test_bad_requests_name_what_is_wrong(settled_guest: Guest) -> None:
    load = start_load(settled_guest, "small", 2, node=1)
    pid = str(load.pid)
    jobs = ask(settled_guest, "jobs")
    for words, status, text in (
        (["migrate", "--pid", pid, "--to", "4"], 1, "node 4"),
        (["migrate", "--pid", pid, "--to", "9"], 1, "9"),
        (["migrate", "--pid", "999999", "--to", "2"], 1, "[no-such-process]"),
        (["migrate", "--pid", "2", "--to", "2"], 1, "[kernel-thread]"),
        (["migrate", "--unit", "nowhere.service", "--to", "2"], 1, "nowhere.service"),
        (["migrate", "--cgroup", "/nowhere", "--to", "2"], 1, "/nowhere"),
        (["migrate", "--to", "2"], 2, "--pid"),
        (["migrate", "--pid", pid, "--to", "2", "--rate", "0"], 2, "rate"),
        (["move", "nowhere", "--nodes", "2"], 1, "nowhere"),
        (["job", "999999"], 1, "[no-such-job]"),
    ):
        message = refused(settled_guest, *words, status=status)
        assert text in message, words
    assert ask(settled_guest, "jobs") == jobs
