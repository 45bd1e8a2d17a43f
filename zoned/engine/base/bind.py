# SPDX-License-Identifier: Apache-2.0
"""Device-dax regions become memory, and programs' again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.base.watch import lent_auto_online
from zoned.kernel.dax import to_devdax, to_system_ram

if TYPE_CHECKING:
    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.base import DaxDevice


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
