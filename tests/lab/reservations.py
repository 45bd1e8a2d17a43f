# SPDX-License-Identifier: Apache-2.0
"""Memory that is reserved for devices, as the ledger tells of it: reading it takes no time."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until

LEDGER = "/run/zoned/ledger.json"
_POLICY = "/etc/zoned/zones.d/50-device.yaml"
_DRIVER_OF_REGION = "/sys/bus/dax/devices/dax0.0/driver"


def ledger(guest: Guest) -> dict[str, Any]:
    """Return all that the ledger has."""
    found: dict[str, Any] = json.loads(guest.read(LEDGER)) if guest.exists(LEDGER) else {}
    return found


def reserved(guest: Guest) -> dict[str, dict[str, Any]]:
    """Return the reservations by name, also those on their way in or out."""
    return {each["name"]: each for each in ledger(guest).get("reservations", ())}


def stand_for(guest: Guest, *addresses: str) -> dict[str, dict[str, Any]]:
    """Wait until a reservation stands for each of the devices; return them by these."""

    def found() -> dict[str, dict[str, Any]]:
        by_device = {
            device: each
            for each in reserved(guest).values()
            if each["standing"]
            for device in each["devices"]
        }
        return by_device if set(addresses) <= by_device.keys() else {}

    return wait_until(found, f"memory for {' and '.join(addresses)}")


def none_left(guest: Guest) -> None:
    """Wait until nothing is reserved any more, and nothing of it is in the ledger."""
    wait_until(lambda: not reserved(guest), "the end of all reservations")
    left = ledger(guest)
    assert not left.get("leases")
    assert not [owner for _, owner, *_ in left.get("blocks", ()) if owner.startswith("dma:")]


def have_region(guest: Guest) -> None:
    """Have dax0.0, of memory that was set aside at boot with `memmap=`."""
    if not guest.exists(_DRIVER_OF_REGION):
        mode = ["-f", "-e", "namespace0.0", "-m", "devdax", "-M", "mem"]
        guest.check(["ndctl", "create-namespace", *mode])
        wait_until(lambda: guest.exists(_DRIVER_OF_REGION), "the driver of dax0.0")


@contextlib.contextmanager
def in_force(guest: Guest, policy: str) -> Iterator[None]:
    """Have a policy for devices for a while; afterwards nothing is reserved any more."""
    guest.write(_POLICY, policy)
    guest.check(["zonectl", "reload"])
    try:
        yield
    finally:
        guest.check(["rm", "-f", _POLICY])
        guest.check(["zonectl", "reload"])
        none_left(guest)
