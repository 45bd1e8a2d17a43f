# SPDX-License-Identifier: Apache-2.0
"""Devices of short reach that really do DMA, with memory that zoned keeps for them and without."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.edu import BITS_28, BITS_31, drive, edus, enable, plugged, pull
from tests.lab.following import PARTIAL
from tests.lab.harness.guest import PYTHON, Completed, Guest, Process
from tests.lab.harness.wait import wait_until
from tests.lab.loads import command
from tests.lab.programs import hog_command, pids
from tests.lab.reservations import have_region, ledger, none_left, reserved, stand_for
from tests.lab.test_blocks import states
from tests.lab.test_dma import BRIDGE, POLICY, devices
from tests.lab.test_zones import ask

NARROW, STRANGE = "0000:01:00.0", "0000:02:00.0"
"""Where a device is that is plugged into rp1 or rp2."""
BY_HAND = f"byhand@{BRIDGE}"
RATIO = "/proc/sys/vm/lowmem_reserve_ratio"
MIB = 1 << 20
_BUFFER = 8 * MIB
_RESERVATIONS = f"""dma:
  quirks:
    - {{match: {{path: "*/{STRANGE}"}}, limit: 31, source: this test}}
  reservations:
    narrow:
      match: {{path: "*/{NARROW}"}}
      size: 16MiB
      rungs: [devdax]
      groups: [dma-drivers]
    strange:
      match: {{path: "*/{STRANGE}"}}
      size: 64MiB
      rungs: [hugetlb]
      groups: [dma-drivers]
"""
_WANTED = "dma: {reservations: {teach: {match: {id: 1234:11e8}, size: 16MiB}}}\n"

Bring = Callable[[str], Guest]


@pytest.fixture
def policy(zoned_guest: Guest) -> Iterator[Bring]:
    """Brings a policy in force, and gives the guest; afterwards nothing is reserved any more."""

    def bring(text: str) -> Guest:
        zoned_guest.write(POLICY, text)
        zoned_guest.check(["zonectl", "reload"])
        return zoned_guest

    yield bring
    zoned_guest.check(["rm", "-f", POLICY])
    zoned_guest.check(["zonectl", "reload"])
    none_left(zoned_guest)


@pytest.fixture
def region(zoned_guest: Guest) -> Guest:
    """A guest with a device-dax region within 28 bits, and a user `driver` who drives devices."""
    have_region(zoned_guest)
    zoned_guest.shell(
        "getent group dma-drivers || groupadd dma-drivers;"
        " id -u driver || useradd --groups dma-drivers driver"
    )
    return zoned_guest


@pytest.mark.on("trixie")
@pytest.mark.parametrize(("mask", "nodes"), [(BITS_28, (0, 2)), (BITS_31, (1, 3))])
def test_ordinary_memory_beyond_the_reach_is_lost(
    guest: Guest, mask: int, nodes: tuple[int, int]
) -> None:
    """What the other tests tell with buffers of zoned's they could tell with none: DMA can fail."""
    # Below 28 bits there may be nothing but page cache.
    guest.shell("sync; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory")
    with plugged(guest, mask) as address:
        enable(guest, address)
        told = drive(guest, "plain", address, mask, *nodes)
    assert told["near"]["physical"] <= mask
    assert told["near"]["both_ways"] is True
    assert told["far"]["physical"] > mask
    assert told["far"]["taken"] == told["far"]["physical"] & mask
    assert (told["read"], told["written"]) == ("taken", "taken")


def client(guest: Guest, *words: object) -> list[str]:
    """Return a command of guest_programs/dma_client.py."""
    return [PYTHON if word == "python3" else word for word in command(guest, "dma_client", *words)]


def by_command(guest: Guest, address: str) -> dict[str, Any]:
    """Have a program do DMA that `zonectl dma alloc` has run."""
    asked = ["zonectl", "dma", "alloc", "--device", address, "--size", str(_BUFFER)]
    return drive(guest, "lent", address, user="driver", before=(*asked, "--"))


def by_library(guest: Guest, address: str) -> dict[str, Any]:
    """Have a program do DMA that asks for its buffer itself."""
    told = guest.check(client(guest, address, _BUFFER), user="driver")
    found: dict[str, Any] = json.loads(told)
    return found


def data_came_and_went(told: dict[str, Any], mask: int) -> None:
    """Check what a program tells that has done DMA with all segments of a buffer."""
    assert told["lost"] == []
    assert len(told["places"]) >= 2
    assert all(place <= mask for place in told["places"])


@pytest.mark.topology("low_memory")
@pytest.mark.on("trixie")
def test_two_devices_that_come_get_memory_each_within_its_own_reach(
    region: Guest, policy: Bring
) -> None:
    before = states(region)
    guest = policy(_RESERVATIONS)
    assert not reserved(guest)
    with plugged(guest, BITS_28, port="rp1") as narrow, plugged(guest, BITS_31, port="rp2") as far:
        assert (narrow, far) == (NARROW, STRANGE)
        found = stand_for(guest, narrow, far)
        assert {name: each["rung"] for name, each in found.items()} == {
            narrow: "devdax",
            far: "hugetlb",
        }
        told = devices(guest)
        assert [
            (told[each]["limit"]["bits"], told[each]["rung"], told[each]["state"])
            for each in (narrow, far)
        ] == [(28, "devdax", "reserved"), (31, "hugetlb", "reserved")]
        assert (told[narrow]["reserved"], told[far]["reserved"]) == (16 * MIB, 64 * MIB)

        for address in (narrow, far):
            enable(guest, address, "driver")
        data_came_and_went(by_command(guest, narrow), BITS_28)
        data_came_and_went(by_library(guest, far), BITS_31)

        pull(guest, port="rp2")
        wait_until(lambda: far not in str(reserved(guest)), "the memory of the one that is gone")
        assert states(guest) == before
        assert list(stand_for(guest, narrow)) == [narrow]
    none_left(guest)
    assert states(guest) == before
    assert ledger(guest)["huge"] == []


@pytest.mark.topology("fake_nodes")
@pytest.mark.on("trixie")
def test_device_behind_an_iommu_needs_nothing(policy: Bring) -> None:
    guest = policy(_WANTED)
    (address,) = edus(guest)
    group = f"/sys/bus/pci/devices/{address}/iommu_group/type"
    assert guest.read(group).strip() in {"DMA", "DMA-FQ"}
    told = devices(guest)[address]
    assert (told["limit"]["bits"], told["iommu"], told["reservation"]) == (
        28,
        "translated",
        "teach",
    )
    assert (told["state"], told["rung"], told["reserved"]) == ("satisfied", "iommu", 0)
    assert not reserved(guest)
    assert [job for job in ask(guest, "jobs") if job["kind"].startswith("dma")] == []


def low_zone(guest: Guest) -> tuple[int, int]:
    """Return what is free of DMA32 and of Normal in bytes, from zoneinfo."""
    text = guest.read("/proc/zoneinfo")
    pages = dict(re.findall(r"^Node 0, zone +(\S+)(?:\n +.*)*?\n +pages free +(\d+)$", text, re.M))
    return int(pages["DMA32"]) << 12, int(pages["Normal"]) << 12


def eat(guest: Guest, size: int) -> Process:
    """Have a program take so much memory, or die of it: of all it is the first to be killed."""
    guest.check(["rm", "-f", "/run/eater.ready"])
    words = hog_command(size // MIB, "/run/eater.ready")
    process = guest.start(["choom", "-n", "1000", "--", *words])
    wait_until(
        lambda: guest.exists("/run/eater.ready") or process.pid not in pids(guest),
        "the eater has eaten",
    )
    return process


def reserve_by_hand(guest: Guest, size: int, *rungs: str) -> Completed:
    """Run `zonectl dma reserve` for a device that has no driver, in one of these ways."""
    asked = ["--device", BRIDGE, "--limit", "31", "--size", str(size), "--name", "byhand"]
    for rung in rungs:
        asked += ["--rung", rung]
    return guest.run(["zonectl", "dma", "reserve", *asked])


def release_by_hand(guest: Guest) -> None:
    """Run `zonectl dma release`; the daemon may just be at it again by itself."""
    release = ["zonectl", "dma", "release", BY_HAND]
    wait_until(lambda: guest.run(release).returncode == 0, "the release")


@pytest.mark.topology("low_memory")
@pytest.mark.on("trixie")
def test_low_memory_that_is_protected_is_still_there_after_an_eater(zoned_guest: Guest) -> None:
    guest, size = zoned_guest, 256 * MIB
    ratio = guest.read(RATIO)
    low, normal = low_zone(guest)
    assert low > size
    # All of what lies high, and enough of what lies low to leave too little.
    much = normal + low - size // 2
    eater = eat(guest, much)
    assert low_zone(guest)[0] < size
    eater.kill()

    assert reserve_by_hand(guest, size, "lowmem").returncode == 0
    assert stand_for(guest, BRIDGE)[BRIDGE]["rung"] == "lowmem"
    assert guest.read(RATIO) != ratio
    eater = eat(guest, much)
    left = low_zone(guest)[0]
    eater.kill()
    print(f"\nlow memory left by an eater: {left // MIB} MiB of {size // MIB} MiB")
    assert left >= size
    release_by_hand(guest)
    none_left(guest)
    assert guest.read(RATIO) == ratio


@pytest.mark.topology("low_memory")
@pytest.mark.on("trixie")
def test_memory_that_is_full_already_leaves_only_the_reboot(zoned_guest: Guest) -> None:
    guest = zoned_guest
    before = states(guest)
    # What is only cached could go.
    guest.shell("sync; echo 3 > /proc/sys/vm/drop_caches")
    eater = eat(guest, sum(low_zone(guest)) - 80 * MIB)
    assert eater.pid in pids(guest)
    done = reserve_by_hand(guest, 64 * MIB, "hugetlb", "pending-reboot")
    assert done.returncode == PARTIAL, done
    assert re.search(r"memmap=\d+M!\d+M", done.stderr), done
    wait_until(lambda: not reserved(guest) and states(guest) == before, "all is as it was")
    assert eater.pid in pids(guest)
    eater.kill()
    release_by_hand(guest)

    # It was for nothing but what the eater had.
    assert reserve_by_hand(guest, 64 * MIB, "hugetlb", "pending-reboot").returncode == 0
    assert stand_for(guest, BRIDGE)[BRIDGE]["rung"] == "hugetlb"
    release_by_hand(guest)
    none_left(guest)
    assert states(guest) == before
