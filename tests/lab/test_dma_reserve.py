# SPDX-License-Identifier: Apache-2.0
"""Memory that is reserved by hand and by the policy, next to what the kernel's files say."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.reservations import have_region, ledger
from tests.lab.test_dma import BRIDGE, MIB, POLICY, devices, edu_address
from tests.lab.test_zones import ask, refused

PAGE = 4096
RATIO = "/proc/sys/vm/lowmem_reserve_ratio"
TEACH = """dma:
  reservations:
    teach: {match: {id: 1234:11e8}, size: 16MiB, limit: 30, rungs: [lowmem]}
"""


@pytest.fixture
def settled(zoned_guest: Guest) -> Iterator[Guest]:
    """A guest that is as it was before, at last."""
    before = zoned_guest.read(RATIO)
    yield zoned_guest
    zoned_guest.check(["rm", "-f", POLICY])
    zoned_guest.check(["zonectl", "reload"])
    zoned_guest.check(["zonectl", "reset"])
    assert zoned_guest.read(RATIO) == before


def protected(guest: Guest) -> int:
    """Return what the kernel keeps of DMA32 from ordinary allocations, by its own word."""
    found = re.search(
        r"^Node 0, zone +DMA32\n(?:.*\n)*? +protection: \(([\d, ]+)\)",
        guest.read("/proc/zoneinfo"),
        re.M,
    )
    assert found
    return int(found[1].split(",")[2]) * PAGE


def reserved(guest: Guest, address: str) -> dict[str, Any]:
    """Return what `dma list` says of a device."""
    return devices(guest)[address]


@pytest.mark.topology("low_memory")
@pytest.mark.on("trixie")
def test_low_memory_is_protected_and_comes_back(settled: Guest) -> None:
    address, before = edu_address(settled), settled.read(RATIO)
    ask_for = ["--size", "16MiB", "--limit", "30", "--rung", "lowmem"]
    settled.check(["zonectl", "dma", "reserve", "--device", address, *ask_for])
    assert protected(settled) >= 16 * MIB
    assert settled.read(RATIO) != before
    told = reserved(settled, address)
    assert (told["state"], told["rung"], told["reserved"]) == ("reserved", "lowmem", 16 * MIB)
    settled.check(["zonectl", "dma", "check"])
    settled.check(["zonectl", "dma", "release", "manual"])
    assert settled.read(RATIO) == before
    assert ledger(settled)["ratio"] is None


@pytest.mark.topology("low_memory")
@pytest.mark.on("trixie")
def test_what_others_write_is_put_right(settled: Guest) -> None:
    before = settled.read(RATIO)
    settled.write(POLICY, TEACH)
    settled.check(["zonectl", "reload"])
    wait_until(lambda: protected(settled) >= 16 * MIB, "the protection of low memory")
    address = edu_address(settled)
    wait_until(lambda: reserved(settled, address)["state"] == "reserved", "the reservation")
    settled.shell(f"echo {before} > {RATIO}")
    # The daemon looks every minute, and whenever it is asked to.
    settled.check(["zonectl", "reload"])
    wait_until(lambda: protected(settled) >= 16 * MIB, "the repair")
    settled.check(["zonectl", "dma", "check"])


@pytest.mark.topology("low_memory")
@pytest.mark.on("trixie")
def test_a_killed_daemon_finds_what_it_reserved(settled: Guest) -> None:
    settled.write(POLICY, TEACH)
    settled.check(["zonectl", "reload"])
    address = edu_address(settled)
    wait_until(lambda: reserved(settled, address)["state"] == "reserved", "the reservation")
    settled.check(["systemctl", "kill", "--signal=KILL", "zoned"])
    wait_until(lambda: settled.run(["zonectl", "status"]).returncode == 0, "the daemon")
    assert reserved(settled, address)["state"] == "reserved"
    assert protected(settled) >= 16 * MIB


@pytest.mark.topology("pmem")
@pytest.mark.on("trixie")
def test_a_part_of_a_region_is_reserved(settled: Guest) -> None:
    have_region(settled)
    asked = ["--device", BRIDGE, "--size", "64MiB", "--limit", "31"]
    settled.check(["zonectl", "dma", "reserve", *asked])
    told = reserved(settled, BRIDGE)
    assert (told["rung"], told["state"]) == ("devdax", "reserved")
    assert "[region-reserved]" in refused(settled, "base", "add", "dax0.0")
    assert "[already-reserved]" in refused(settled, "dma", "reserve", *asked)
    settled.check(["zonectl", "dma", "release", BRIDGE])
    assert ask(settled, "dma", "list")[0]["reserved"] == 0
