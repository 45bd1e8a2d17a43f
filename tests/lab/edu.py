# SPDX-License-Identifier: Apache-2.0
"""QEMU's edu device in the guest: plugged in and pulled while it runs, and made to do DMA."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.lab.harness.guest import Guest
from tests.lab.harness.wait import wait_until
from tests.lab.loads import command

BITS_28 = 0xFFFFFFF
"""How far it reaches unless it is told otherwise."""
BITS_31 = 0x7FFFFFFF
_FIND = ("lspci", "-D", "-n", "-d", "1234:11e8")


def edus(guest: Guest) -> set[str]:
    """Return the addresses of all such devices, as lspci has them."""
    # It gives up where a device that it saw in the folder is pulled before it reads its files.
    (listed,) = wait_until(lambda: _listed(guest), "a list of devices that is whole")
    return {line.split()[0] for line in listed.splitlines()}


def _listed(guest: Guest) -> tuple[str, ...]:
    """Return what lspci prints, if it comes to its end."""
    done = guest.run([*_FIND])
    return () if done.returncode else (done.stdout,)


@contextlib.contextmanager
def plugged(guest: Guest, mask: int = BITS_28, *, port: str = "rp1") -> Iterator[str]:
    """Have one more for a while, behind a root port (rp1 or rp2); gives its address."""
    with pulled_at_end(guest, port):
        yield plug(guest, mask, port=port)


def plug(guest: Guest, mask: int, *, port: str) -> str:
    """Plug one in, and return its address once the kernel has it."""
    before = edus(guest)
    guest.qmp("device_add", driver="edu", id=f"edu-{port}", bus=port, dma_mask=mask)
    new = wait_until(lambda: edus(guest) - before, f"an edu device behind {port}")
    return new.pop()


@contextlib.contextmanager
def pulled_at_end(guest: Guest, port: str) -> Iterator[None]:
    """Pull what is behind the port by then, if anything is."""
    try:
        yield
    finally:
        if any(each["qdev_id"] == f"edu-{port}" for each in _behind(guest, port)):
            pull(guest, port=port)


def _behind(guest: Guest, port: str) -> list[dict[str, Any]]:
    (bridge,) = (
        each for bus in guest.qmp("query-pci") for each in bus["devices"] if each["qdev_id"] == port
    )
    found: list[dict[str, Any]] = bridge["pci_bridge"].get("devices", [])
    return found


def pull(guest: Guest, *, port: str) -> None:
    """Pull the one behind the port, and wait until the kernel has let it go."""
    before = len(edus(guest))
    guest.qmp("device_del", id=f"edu-{port}")
    wait_until(lambda: len(edus(guest)) < before, f"the end of the edu device behind {port}")


def drive(
    guest: Guest, *words: object, user: str | None = None, before: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a command of guest_programs/edu.py, behind the words `before`; return what it prints."""
    done = guest.check([*before, *command(guest, "edu", *words)], user=user)
    told: dict[str, Any] = json.loads(done)
    return told


def enable(guest: Guest, address: str, user: str = "root") -> None:
    """Let the device do DMA, and a user drive it."""
    guest.check(command(guest, "edu", "enable", address, user))
