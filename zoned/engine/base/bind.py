# SPDX-License-Identifier: Apache-2.0
"""Device-dax regions become memory, and programs' again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from zoned.engine.base.watch import lent_auto_online
from zoned.engine.jobs.control import Cancelled
from zoned.errors import ZonedError
from zoned.kernel.dax import read_dax, to_devdax, to_system_ram
from zoned.model.base import DaxMode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.base import DaxDevice


@contextlib.contextmanager
def changing(
    machine: Machine, hands: Hands, devices: Collection[DaxDevice], to: DaxMode
) -> Iterator[None]:
    """Have the ledger know of regions that are not yet `to`, until the block ends.

    Where the daemon ends first, they stay there for its next start.
    """
    former = {each.name: each.mode for each in devices if each.mode is not to}
    hands.change(lambda: machine.ledger.regions_change(former))
    names = [each.name for each in devices]
    try:
        yield
    except (ZonedError, Cancelled):
        hands.change(lambda: _forget(machine, names))
        raise
    hands.change(lambda: _forget(machine, names))


def _forget(machine: Machine, names: Collection[str]) -> None:
    """Strike regions off the ledger, but for those that lost their driver: the next start gives
    them one.
    """
    noted = machine.ledger.touched.regions
    lost = {
        each.name
        for each in read_dax(machine.root)
        if each.mode is DaxMode.DISABLED and noted.get(each.name) is not DaxMode.DISABLED
    }
    machine.ledger.regions_settled(name for name in names if name not in lost)


def become_memory(machine: Machine, hands: Hands, device: DaxDevice) -> None:
    """Have a region's blocks appear, offline as far as the kernel is concerned.

    Raises Unsupported, KernelRefused; the region is then as it was.
    """

    def bind() -> None:
        with lent_auto_online(machine):
            to_system_ram(machine.root, device)

    hands.change(bind)


def become_device(machine: Machine, hands: Hands, device: DaxDevice) -> None:
    """Have programs map a region again, all of whose blocks are offline.

    Raises KernelRefused, NotAsWritten.
    """
    hands.change(lambda: to_devdax(machine.root, device))
