# SPDX-License-Identifier: Apache-2.0
"""The blocks of a machine against what is wanted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.blocks.needs import find_needs, has_blocks
from zoned.kernel.memory_block import block_size, read_blocks

if TYPE_CHECKING:
    from zoned.engine.blocks.needs import Needs
    from zoned.engine.machine import Machine


def needs_of(machine: Machine) -> Needs:
    """Return what differs between the blocks that are held and those that should be."""
    touched, zones = machine.ledger.touched, machine.store.zones.values()
    # Machines have tens of thousands of blocks, and this is asked at every look at the machine.
    concerned = touched.blocks or machine.policy.parked or any(map(has_blocks, zones))
    blocks = read_blocks(machine.root) if concerned else ()
    size = block_size(machine.root) or 1
    return find_needs(
        zones, touched.blocks, blocks, size, machine.policy.parked, touched.reservations
    )
