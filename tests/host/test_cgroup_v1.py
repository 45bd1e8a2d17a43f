# SPDX-License-Identifier: Apache-2.0
"""The v1 driver on this machine's own hierarchies, below a parent that is only the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from zoned.errors import BelowUse, HasMembers, KernelThread, NoSuchProcess
from zoned.kernel.cgroup.mounts import cgroup_mounts
from zoned.kernel.cgroup.tree import CgroupFs, children, kill_tree, leaves_first, wait_until
from zoned.kernel.cgroup.v1 import CgroupV1
from zoned.kernel.root import Root, read_ids
from zoned.model.zone import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.host

MIB = 1 << 20
PARENT = f"zoned-test-{os.getpid()}"
ROOT = Root()

# Prints once it has touched its memory, then waits for its input to end.
_EATER = """
import sys
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
print("full", flush=True)
sys.stdin.read()
"""
# The same, but waits for a line before it takes memory.
_PATIENT = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n" + _EATER


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    absent = {"cpuset", "memory"} - cgroup_mounts(ROOT).v1.keys()
    return f"no cgroup v1 hierarchy for {', '.join(sorted(absent))}" if absent else None


@pytest.fixture
def driver() -> Iterator[CgroupV1]:
    if reason := _missing():
        pytest.skip(reason)
    driver = CgroupV1(ROOT, PARENT)
    driver.prepare()
    yield driver
    for mount in {cgroup_mounts(ROOT).v1[name] for name in ("cpuset", "memory")}:
        for child in children(mount / PARENT):
            kill_tree(CgroupFs(), child)
        for group in leaves_first(mount / PARENT):
            group.rmdir()


@pytest.fixture
def spawn() -> Iterator[type[_Spawned]]:
    yield _Spawned
    for process in _Spawned.all:
        process.end()
    _Spawned.all.clear()


class _Spawned:
    """A memory user that is told what to do by lines."""

    all: list[_Spawned] = []  # noqa: RUF012 - one list for all is what it is for

    def __init__(self, script: str, size: int) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", script, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.all.append(self)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def line(self) -> str:
        """Return the next line, "" where it ended instead."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def go(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        self.popen.kill()
        self.popen.communicate()


def _limits(driver: CgroupV1, size: int | None = 64 * MIB) -> Limits:
    return driver.expected(Limits(max=size, swap=0))


def test_create_reads_back_as_expected(driver: CgroupV1) -> None:
    wanted = Limits(max=64 * MIB + 1, min=32 * MIB, high=48 * MIB, swap=0, exclusive_cpus=True)

    driver.create("db", wanted)

    group = driver.group("db")
    assert group is not None
    assert group.limits == driver.expected(wanted)
    assert group.limits.max == 64 * MIB
    assert (group.limits.min, group.limits.high, group.limits.exclusive_cpus) == (0, None, False)
    assert group.effective_mems == read_ids(cgroup_mounts(ROOT).v1["cpuset"] / "cpuset.mems")
    assert [found.zone for found in driver.groups()] == ["db"]


def test_the_limit_kills_what_is_inside_and_nothing_else(
    driver: CgroupV1, spawn: type[_Spawned]
) -> None:
    driver.create("db", _limits(driver))
    inside, bystander = spawn(_PATIENT, 200), spawn(_EATER, 1)
    outside = spawn(_PATIENT, 200)
    for each in (inside, outside):
        assert each.line() == "ready"
    assert bystander.line() == "full"
    driver.attach("db", [inside.pid, bystander.pid])

    inside.go()
    outside.go()

    assert inside.line() == ""
    assert inside.popen.wait() == -9
    assert outside.line() == "full"
    assert (outside.popen.poll(), bystander.popen.poll()) == (None, None)
    group = driver.group("db")
    assert group is not None
    assert group.pids == (bystander.pid,)
    assert group.events.oom_kill


def test_attach_and_release_move_a_process_in_both_hierarchies(
    driver: CgroupV1, spawn: type[_Spawned]
) -> None:
    driver.create("db", _limits(driver))
    process = spawn(_PATIENT, 8)
    assert process.line() == "ready"
    former = driver.location(process.pid)

    driver.attach("db", [process.pid])

    assert driver.location(process.pid) == f"/{PARENT}/db"
    process.go()
    assert process.line() == "full"
    group = driver.group("db")
    assert group is not None
    assert group.pids == (process.pid,)
    assert (group.anon or 0) >= 8 * MIB
    # The kernel counts pages per node in batches, so some are not there yet.
    assert sum(group.by_node.values()) >= 7 * MIB

    driver.release([process.pid], former)

    assert driver.location(process.pid) == former
    assert driver.pids_below(f"/{PARENT}/db") == ()


def test_a_zone_with_members_is_not_removed(driver: CgroupV1, spawn: type[_Spawned]) -> None:
    driver.create("db", _limits(driver))
    process = spawn(_EATER, 1)
    driver.attach("db", [process.pid])

    with pytest.raises(HasMembers):
        driver.remove("db")

    assert process.popen.poll() is None
    driver.kill("db")
    assert process.popen.wait() == -9
    driver.remove("db")
    driver.remove("db")
    driver.retire()
    places = {cgroup_mounts(ROOT).v1[name] / PARENT for name in ("cpuset", "memory")}
    assert not any(place.exists() for place in places)


def test_shrinking_below_use_changes_nothing(driver: CgroupV1, spawn: type[_Spawned]) -> None:
    driver.create("db", _limits(driver))
    process = spawn(_PATIENT, 32)
    assert process.line() == "ready"
    driver.attach("db", [process.pid])
    process.go()
    assert process.line() == "full"
    before = driver.group("db")

    with pytest.raises(BelowUse):
        driver.change("db", _limits(driver, 16 * MIB))
    assert not driver.reclaim("db", 32 * MIB)

    after = driver.group("db")
    assert before is not None
    assert after is not None
    assert after.limits == before.limits
    assert process.popen.poll() is None


@pytest.mark.parametrize("sizes", [(64, 128), (128, 64), (64, None), (None, 64)])
def test_memory_and_swap_limits_in_every_direction(
    driver: CgroupV1, sizes: tuple[int | None, int | None]
) -> None:
    for size in sizes:
        limits = _limits(driver, size * MIB if size else None)
        if size == sizes[0]:
            driver.create("db", limits)
        else:
            driver.change("db", limits)
        group = driver.group("db")
        assert group is not None
        assert group.limits == limits


def test_reclaim_takes_back_page_cache(driver: CgroupV1, tmp_path: object) -> None:
    driver.create("db", _limits(driver))
    script = (
        "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "handle = open(sys.argv[1], 'wb')\nhandle.write(bytes(24 << 20))\nhandle.flush()\n"
        "import os\nos.fsync(handle.fileno())\nprint('full', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, f"{tmp_path}/cache"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        driver.attach("db", [process.pid])
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "full\n"
        before = driver.group("db")
        assert before is not None
        assert before.used is not None

        assert driver.reclaim("db", 8 * MIB)

        after = driver.group("db")
        assert after is not None
        assert after.used is not None
        assert after.used <= before.used - 7 * MIB
        assert after.limits == before.limits
    finally:
        process.kill()
        process.communicate()


def test_who_cannot_be_a_member(driver: CgroupV1) -> None:
    driver.create("db", _limits(driver))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    with pytest.raises(NoSuchProcess):
        driver.attach("db", [ended.pid])
    with pytest.raises(KernelThread):
        driver.attach("db", [2])
    assert wait_until(lambda: driver.location(ended.pid) is None, 1)
    group = driver.group("db")
    assert group is not None
    assert group.pids == ()
