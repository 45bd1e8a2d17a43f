# SPDX-License-Identifier: Apache-2.0
"""The driver for machines without systemd, on a real kernel: beside systemd, in a group of its own.

systemd leaves groups alone that it did not make. What the driver did is read with cat.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.lab.harness.guest import Guest
from tests.lab.programs import start_hog

MIB = 1 << 20
PARENT = "/sys/fs/cgroup/zoned-lab"
_PRELUDE = """
from zoned.errors import BelowUse, HasMembers, Unsupported
from zoned.kernel.cgroup.v2 import CgroupV2
from zoned.kernel.root import Root
from zoned.model.zone import Limits
driver, MIB = CgroupV2(Root(), "zoned-lab"), 1 << 20
db = Limits(max=256 * MIB, min=128 * MIB, swap=0, mems=frozenset({2}), cpus=frozenset({1, 2}))
"""
_CLEAN = """
for group in driver.groups():
    driver.kill(group.zone)
    driver.remove(group.zone)
driver.retire()
"""

Run = Callable[[str], str]


@pytest.fixture
def run(zoned_guest: Guest) -> Iterator[Run]:
    """Run lines of Python in the guest that find the driver as `driver`."""

    def run(script: str) -> str:
        return zoned_guest.python(_PRELUDE + script).strip()

    before = zoned_guest.read("/sys/fs/cgroup/cgroup.subtree_control")
    yield run
    run(_CLEAN)
    assert not zoned_guest.exists(PARENT)
    assert zoned_guest.read("/sys/fs/cgroup/cgroup.subtree_control") == before


@pytest.mark.on("bookworm")
def test_a_group_has_its_limits(guest: Guest, run: Run) -> None:
    assert run("driver.create('db', db); print(driver.group('db').limits == db)") == "True"

    shown = {
        name: guest.read(f"{PARENT}/db/{name}").strip()
        for name in ("memory.max", "memory.min", "cpuset.mems.effective", "cpuset.cpus")
    }
    assert shown == {
        "memory.max": str(256 * MIB),
        "memory.min": str(128 * MIB),
        "cpuset.mems.effective": "2",
        "cpuset.cpus": "1-2",
    }


@pytest.mark.on("bookworm")
def test_a_node_without_memory_is_refused_and_leaves_nothing(guest: Guest, run: Run) -> None:
    run(
        "from zoned.errors import NotAsWritten\n"
        "try: driver.create('bad', Limits(max=MIB, mems=frozenset({4})))\n"
        "except NotAsWritten: pass\n"
        "else: raise SystemExit('not refused')"
    )

    assert not guest.exists(f"{PARENT}/bad")


def test_a_member_keeps_the_zone_and_its_limit(guest: Guest, run: Run) -> None:
    run("driver.create('db', db)")
    hog = start_hog(guest, 100)

    run(f"driver.attach('db', [{hog.pid}])")
    assert guest.read(f"/proc/{hog.pid}/cgroup").strip() == "0::/zoned-lab/db/members"
    assert "Mems_allowed_list:\t2\n" in guest.read(f"/proc/{hog.pid}/status")

    inside = start_hog(
        guest,
        100,
        ["sh", "-c", f'echo $$ > {PARENT}/db/members/cgroup.procs; exec "$@"', "sh"],
        "in",
    )
    run(
        "for refused, act in ((HasMembers, lambda: driver.remove('db')),\n"
        "    (BelowUse, lambda: driver.change('db', Limits(max=64 * MIB, mems=db.mems)))):\n"
        "    try: act()\n"
        "    except refused: continue\n"
        "    raise SystemExit('not refused')\n"
        "assert driver.group('db').limits == db"
    )
    assert guest.exists(f"/proc/{inside.pid}/stat")

    run(f"driver.release([{hog.pid}], None)")
    assert guest.read(f"/proc/{hog.pid}/cgroup").strip() == "0::/"


@pytest.mark.on("bookworm")
def test_cpus_are_lifted_while_there_are_members(guest: Guest, run: Run) -> None:
    run("driver.create('db', db)")
    hog = start_hog(guest, 1)
    run(f"driver.attach('db', [{hog.pid}])")

    lifted = "Limits(max=db.max, min=db.min, swap=0, mems=db.mems)"
    assert (
        run(f"driver.change('db', {lifted}); print(driver.group('db').limits == {lifted})")
        == "True"
    )

    assert "Cpus_allowed_list:\t0-3\n" in guest.read(f"/proc/{hog.pid}/status")


def test_exclusive_cpus_where_the_kernel_has_remote_partitions(guest: Guest, run: Run) -> None:
    run("driver.create('db', db)")
    answer = run(
        "alone = Limits(max=MIB, cpus=frozenset({3}), exclusive_cpus=True)\n"
        "try: driver.create('rt', alone)\n"
        "except Unsupported as error: print(error.message)\n"
        "else: print(driver.group('rt').limits == driver.expected(alone))"
    )

    if guest.exists(f"{PARENT}/db/cpuset.cpus.exclusive"):
        assert answer == "True"
        assert guest.read("/sys/fs/cgroup/cpuset.cpus.effective").strip() == "0-2"
    else:
        assert "Parent is not a partition root" in answer
        assert not guest.exists(f"{PARENT}/rt")
