# SPDX-License-Identifier: Apache-2.0
"""Low memory for devices in memory blocks that really go offline and come back: held for a device
that is away, given to the kernel when it comes, or made into huge pages for programs.
"""

import re
from collections.abc import Iterator

import pytest

from tests.lab.following import CRASH, TRY_LATER, begin, ended, follow, show
from tests.lab.harness.guest import Completed, Guest
from tests.lab.harness.wait import wait_until
from tests.lab.reservations import none_left, reserved
from tests.lab.test_blocks import held, states
from tests.lab.test_dma import BRIDGE, POLICY
from tests.lab.test_zones import ask, refused

pytestmark = pytest.mark.on("trixie")

MIB = 1 << 20
_BLOCK = 128 * MIB
_NAME = f"manual@{BRIDGE}"
_OWNER = f"dma:{_NAME}"
_HUGE = 2 * MIB
_POOLS = "/sys/devices/system/node/node*/hugepages/hugepages-2048kB"
# KPF_HUGE and KPF_COMPOUND_HEAD of include/uapi/linux/kernel-page-flags.h: heads of huge pages.
_HEADS = """
import struct, sys
with open("/proc/kpageflags", "rb") as flags:
    for block in map(int, sys.argv[1:]):
        flags.seek(block * {block} // 4096 * 8)
        words = struct.unpack("={count}Q", flags.read({count} * 8))
        for page, word in enumerate(words):
            if word >> 17 & 1 and word >> 15 & 1:
                print(block * {block} + page * 4096)
""".format(block=_BLOCK, count=_BLOCK // 4096)


@pytest.fixture
def machine(settled_guest: Guest) -> Iterator[Guest]:
    """A guest all of whose blocks are found as they were, and no huge page more than before."""
    guest = settled_guest
    blocks, pools = states(guest), guest.shell(f"cat {_POOLS}/*")
    yield guest
    if guest.exists(POLICY):
        guest.check(["rm", POLICY])
        guest.check(["zonectl", "reload"])
    if _NAME in reserved(guest):
        release(guest)
    none_left(guest)
    # Blocks go back when nobody owns them any more.
    wait_until(lambda: states(guest) == blocks, "all blocks are as they were", 120)
    # Pages that a program has just let go of are a moment on their way out.
    wait_until(lambda: guest.shell(f"cat {_POOLS}/*") == pools, "all pools are as they were")


def reserve(guest: Guest, mib: int, bits: int, rung: str) -> None:
    """Reserve for a device without a limit of its own."""
    words = ["--device", BRIDGE, "--size", f"{mib}MiB", "--limit", str(bits), "--rung", rung]
    follow(guest, "dma", "reserve", *words)


def release(guest: Guest) -> None:
    """Give it back, when nobody works on it any more."""
    asked = ["zonectl", "dma", "release", _NAME, "-o", "json"]

    def done() -> Completed | None:
        found = guest.run(asked, timeout=300)
        return None if found.returncode == TRY_LATER else found

    over = wait_until(done, "its turn to be given back", 120)
    assert over is not None
    ended(over)


def huge_pages(guest: Guest, blocks: list[int]) -> list[int]:
    """Return the addresses of huge pages in these blocks, by the kernel's list of page frames."""
    text = guest.python(_HEADS, *blocks)
    return [int(line) for line in text.splitlines()]


def lasting(guest: Guest) -> int:
    """Return how many huge pages all nodes' pools have."""
    return sum(map(int, guest.shell(f"cat {_POOLS}/nr_hugepages").split()))


def test_huge_pages_below_the_limit(machine: Guest) -> None:
    before = lasting(machine)
    reserve(machine, 128, 31, "hugetlb")
    mine = held(machine, _OWNER)
    assert {states(machine)[each] for each in mine} == {("online", "Movable")}
    assert all((each + 1) * _BLOCK <= 1 << 31 for each in mine)
    assert len(huge_pages(machine, mine)) >= 64
    assert lasting(machine) == before + 64
    machine.check(["zonectl", "dma", "check"])
    device = next(each for each in ask(machine, "dma", "list") if each["device"] == BRIDGE)
    assert (device["reserved"], device["state"]) == (128 * MIB, "reserved")
    release(machine)
    assert lasting(machine) == before


def test_huge_pages_outlive_the_daemon(machine: Guest) -> None:
    reserve(machine, 64, 31, "hugetlb")
    mine = held(machine, _OWNER)
    pages = huge_pages(machine, mine)
    machine.shell(CRASH)
    wait_until(lambda: not machine.run(["zonectl", "dma", "check"]).returncode, "all is well")
    assert huge_pages(machine, mine) == pages
    assert held(machine, _OWNER) == mine
    release(machine)


def test_pages_that_somebody_pushed_away_are_found_and_replaced(machine: Guest) -> None:
    reserve(machine, 64, 31, "hugetlb")
    (mine,) = held(machine, _OWNER)
    machine.shell(f"echo offline > /sys/devices/system/memory/memory{mine}/state")
    assert not huge_pages(machine, [mine])
    wait_until(lambda: len(huge_pages(machine, [mine])) >= 32, "the pages are back")
    wait_until(lambda: not machine.run(["zonectl", "dma", "check"]).returncode, "all is well")
    release(machine)


def test_nobody_else_takes_these_blocks(machine: Guest) -> None:
    reserve(machine, 256, 31, "hugetlb")
    mine = set(held(machine, _OWNER))
    told = refused(machine, "blocks", "park", "--node", "1", "--size", "512MiB")
    assert f"for reservation {_NAME}" in told
    told = refused(machine, "blocks", "offline", str(min(mine)))
    assert f"[wrong-block] memory block {min(mine)} is held already: {_OWNER}" in told
    assert set(held(machine, _OWNER)) == mine
    status = ask(machine, "status")
    (node,) = {each["node"] for each in ask(machine, "blocks", "list") if each["id"] in mine}
    capacity = next(each for each in status["nodes"] if each["node"] == node)
    assert capacity["reserved"] == 256 * MIB
    release(machine)


def test_blocks_come_back_to_the_zone_that_they_were_in(machine: Guest) -> None:
    # Of few blocks below a limit too many may have memory of the kernel's own in them.
    reserve(machine, 256, 30, "blocks")
    now = states(machine)
    mine = held(machine, _OWNER)
    below = [each for each in mine if (each + 1) * _BLOCK <= 1 << 30]
    assert len(below) == 2
    assert {now[each] for each in below} == {("online", "DMA32")}
    above = set(mine) - set(below)
    assert above
    assert {now[each] for each in above} == {("online", "Movable")}
    machine.check(["zonectl", "dma", "check"])
    release(machine)


def test_blocks_wait_for_the_device(machine: Guest) -> None:
    machine.write(
        POLICY,
        """dma:
  reservations:
    cards:
      match: {id: 1b36:0005}
      size: 256MiB
      limit: 30
      hold: true
      rungs: [blocks]
""",
    )
    machine.check(["zonectl", "reload"])

    def below() -> set[tuple[str, str]]:
        now = states(machine)
        mine = [each for each in held(machine, "dma:cards") if (each + 1) * _BLOCK <= 1 << 30]
        return {now[each] for each in mine} if len(mine) == 2 else set()

    wait_until(lambda: below() == {("offline", "DMA32")}, "blocks wait offline", 120)

    def offline() -> int:
        return sum(each["state"] == "offline" for each in ask(machine, "blocks", "list"))

    # Those above the limit go offline only to come back as movable.
    wait_until(lambda: offline() == 2, "no others are offline", 120)
    machine.qmp("device_add", driver="pci-testdev", id="card", bus="rp1")
    wait_until(lambda: below() == {("online", "DMA32")}, "the kernel has them", 120)
    machine.qmp("device_del", id="card")

    def wait_again() -> bool:
        # What the kernel keeps of them is made good by others.
        mine = held(machine, "dma:cards")
        return sum(states(machine)[each][0] == "offline" for each in mine) == 2

    wait_until(wait_again, "blocks wait offline again", 120)


@pytest.mark.parametrize(
    ("rung", "phase"),
    [
        ("blocks", "taking block"),
        ("blocks", "giving memory block"),
        ("hugetlb", "making"),
    ],
)
def test_a_killed_daemon_leaves_no_block_behind(machine: Guest, rung: str, phase: str) -> None:
    words = ["--device", BRIDGE, "--size", "256MiB", "--limit", "30", "--rung", rung]
    number = begin(machine, "dma", "reserve", *words)

    def is_there() -> bool:
        job = show(machine, number)
        return bool(job["phase"].startswith(phase) or job["state"] != "running")

    wait_until(is_there, f"the job is at {phase!r}")
    machine.shell(CRASH)
    follow(machine, "job", number, "wait")
    machine.check(["zonectl", "dma", "check"])
    assert held(machine, _OWNER)
    release(machine)


def test_more_than_the_low_blocks_can_give_is_refused_and_changes_nothing(machine: Guest) -> None:
    before = states(machine)
    # All but one of 16: the first and the last always have something that stays.
    words = ["--device", BRIDGE, "--size", "1900MiB", "--limit", "31", "--rung", "blocks"]
    told = refused(machine, "dma", "reserve", *words)
    assert re.search(r"\[(no-rung|too-few-blocks|pending-reboot)\]", told), told
    assert states(machine) == before
