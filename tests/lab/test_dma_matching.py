# SPDX-License-Identifier: Apache-2.0
"""Which devices a policy gives memory to: by each key, by priority, together, and as drivers come
and go.
"""

import pytest

from tests.lab.edu import BITS_28, edus, plugged, pull
from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.reservations import have_region, in_force, none_left, reserved, stand_for
from tests.lab.test_dma import devices, edu_address, rungs_of
from tests.lab.test_dma_reserve import protected
from tests.lab.test_zones import ask

pytestmark = [pytest.mark.topology("low_memory"), pytest.mark.on("trixie")]

FIRST, SECOND = "0000:01:00.0", "0000:02:00.0"
"""Where a device is that is plugged into rp1 or rp2."""
DISKS, SMBUS = "0000:00:1f.2", "0000:00:1f.3"
MIB = 1 << 20

KEYS = """dma:
  reservations:
    by-class: {match: {class: "0106"}, size: 16MiB, limit: 31, rungs: [lowmem]}
    by-driver: {match: {driver: i801_smbus}, size: 16MiB, limit: 31, rungs: [lowmem]}
    by-modalias:
      match: {modalias: "pci:v00001234d000011E8*"}
      size: 16MiB
      limit: 31
      rungs: [devdax]
    by-path: {match: {path: "*/0000:01:00.0"}, size: 24MiB, limit: 31, rungs: [devdax]}
    nobody: {match: {class: "0106", driver: i801_smbus}, size: 16MiB, rungs: [lowmem]}
"""
SCARCE = f"""dma:
  reservations:
    first: {{match: {{path: "*/{FIRST}"}}, size: 40MiB, priority: 10, rungs: [devdax]}}
    second: {{match: {{path: "*/{SECOND}"}}, size: 40MiB, priority: 90, rungs: [devdax]}}
"""
TOGETHER = """dma:
  quirks:
    - {match: {path: "/devices/*", id: 1234:11e8}, limit: 30, source: this test}
  reservations:
    cards: {match: {id: 1234:11e8}, size: 24MiB, rungs: [lowmem]POOL}
"""


def test_each_key_finds_its_devices_and_the_closest_counts(zoned_guest: Guest) -> None:
    guest, there = zoned_guest, edu_address(zoned_guest)
    have_region(guest)
    with plugged(guest, BITS_28, port="rp1") as new, in_force(guest, KEYS):
        found = stand_for(guest, DISKS, SMBUS, there, new)
        assert len(reserved(guest)) == 4
        guest.check(["zonectl", "dma", "check"])
        told = devices(guest)
    assert {device: (each["name"], each["size"] // MIB) for device, each in found.items()} == {
        DISKS: (f"by-class@{DISKS}", 16),
        SMBUS: (f"by-driver@{SMBUS}", 16),
        there: (f"by-modalias@{there}", 16),
        FIRST: (f"by-path@{FIRST}", 24),
    }
    # As udev and the kernel have them.
    assert told[there]["modalias"].startswith("pci:v00001234d000011E8")
    assert (told[DISKS]["class"], told[SMBUS]["driver"]) == ("010601", "i801_smbus")
    named = {name for name, each in told.items() if each["reservation"]}
    assert named == found.keys()


def test_the_more_important_has_what_is_there_for_one(zoned_guest: Guest) -> None:
    guest = zoned_guest
    have_region(guest)
    with plugged(guest, BITS_28, port="rp1"), plugged(guest, BITS_28, port="rp2"):
        assert {FIRST, SECOND} < edus(guest)
        with in_force(guest, SCARCE):
            stand_for(guest, SECOND)
            assert list(reserved(guest)) == [f"second@{SECOND}"]
            assert devices(guest)[FIRST]["state"] == "impossible"
            why = rungs_of(ask(guest, "dma", "explain", FIRST))["devdax"]["why"]
            assert why.startswith("no region has so much below the limit that is not promised")
            pull(guest, port="rp2")
            stand_for(guest, FIRST)
            assert list(reserved(guest)) == [f"first@{FIRST}"]


@pytest.mark.parametrize("pool", ["", ", pool: both"])
def test_a_pool_is_for_all_of_them_together(zoned_guest: Guest, pool: str) -> None:
    guest, there = zoned_guest, edu_address(zoned_guest)
    before = protected(guest)
    with plugged(guest, BITS_28) as new, in_force(guest, TOGETHER.replace("POOL", pool)):
        found = stand_for(guest, there, new)
        names = {each: f"cards@{each}" for each in (there, new)}
        assert {device: each["name"] for device, each in found.items()} == (
            dict.fromkeys(names, "both") if pool else names
        )
        wanted = 24 * MIB if pool else 48 * MIB
        assert sum(each["size"] for each in reserved(guest).values()) == wanted
        assert protected(guest) >= wanted
        guest.check(["zonectl", "dma", "check"])
        if pool:
            pull(guest, port="rp1")
            wait_until(lambda: reserved(guest)["both"]["devices"] == [there], "who is left")
            assert reserved(guest)["both"]["standing"]
    assert protected(guest) == before


def of_smbus(match: str, more: str = "") -> str:
    """Return a policy for one device that has a driver."""
    wish = f"{{match: {{{match}}}, size: 16MiB, rungs: [lowmem]{more}}}"
    return f"dma:\n  reservations:\n    bus: {wish}\n"


def drive(guest: Guest, word: str) -> None:
    """Bind the device's driver, or unbind it."""
    guest.write(f"/sys/bus/pci/drivers/i801_smbus/{word}", SMBUS)


def test_what_a_driver_is_to_have_goes_with_it(zoned_guest: Guest) -> None:
    guest = zoned_guest
    with in_force(guest, of_smbus("driver: i801_smbus", ", limit: 31")):
        assert stand_for(guest, SMBUS)[SMBUS]["name"] == f"bus@{SMBUS}"
        drive(guest, "unbind")
        none_left(guest)
        drive(guest, "bind")
        stand_for(guest, SMBUS)


def test_what_is_held_waits_for_the_driver(zoned_guest: Guest) -> None:
    guest = zoned_guest
    with in_force(guest, of_smbus("driver: i801_smbus", ", limit: 31, hold: true")):
        before = stand_for(guest, SMBUS)[SMBUS]
        drive(guest, "unbind")
        wait_until(lambda: not reserved(guest)["bus"]["devices"], "no device")
        assert reserved(guest)["bus"] == {**before, "devices": []}
        drive(guest, "bind")
        assert stand_for(guest, SMBUS)[SMBUS] == before


def test_what_a_device_has_stays_between_two_drivers(zoned_guest: Guest) -> None:
    guest = zoned_guest
    with in_force(guest, of_smbus(f'path: "*/{SMBUS}"')):
        before = stand_for(guest, SMBUS)[SMBUS]
        # How far it reaches is only known while it has a driver.
        assert before["mask"] == 0xFFFFFFFF
        drive(guest, "unbind")
        guest.check(["zonectl", "reload"])
        told = devices(guest)[SMBUS]
        assert (told["driver"], told["error"]) == (None, "limit-unknown")
        guest.check(["zonectl", "dma", "check"])
        assert reserved(guest)[before["name"]] == before
        drive(guest, "bind")
        wait_until(lambda: devices(guest)[SMBUS]["state"] == "reserved", "its driver")
        assert reserved(guest)[before["name"]] == before


PASSED = """dma:
  quirks:
    - {match: {path: "/devices/*", id: 1234:11e8}, limit: 30, source: this test}
  reservations:
    teach: {match: {id: 1234:11e8}, size: 16MiB, rungs: [iommu, pending-reboot]}
"""


@pytest.mark.topology("fake_nodes")
def test_a_device_that_the_iommu_lets_through_needs_memory(zoned_guest: Guest) -> None:
    guest, address = zoned_guest, edu_address(zoned_guest)
    kind = f"/sys/bus/pci/devices/{address}/iommu_group/type"
    former = guest.read(kind).strip()
    with in_force(guest, PASSED):
        assert devices(guest)[address]["state"] == "satisfied"
        # As all devices have it after a boot with iommu=pt; no driver may have the device.
        guest.write(kind, "identity")
        try:
            told = ask(guest, "dma", "explain", address)
        finally:
            guest.write(kind, former)
    assert (told["iommu"], told["state"]) == ("passthrough", "pending-reboot")
    assert rungs_of(told)["iommu"]["holds"] is False
