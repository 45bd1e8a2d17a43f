# SPDX-License-Identifier: Apache-2.0
"""The blocks of a machine against what is wanted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.blocks.needs import find_needs
from zoned.kernel.memory_block import block_size, read_blocks

if TYPE_CHECKING:
    from zoned.engine.blocks.needs import Needs
    from zoned.engine.machine import Machine


def needs_of(machine: Machine) -> Needs:
    """Return what differs between the blocks that are held and those that should be."""
    return find_needs(
        machine.store.zones.values(),
        machine.ledger.touched.blocks,
        read_blocks(machine.root),
        block_size(machine.root) or 1,
        machine.policy.parked,
    )
