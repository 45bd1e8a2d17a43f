# SPDX-License-Identifier: Apache-2.0
"""What a request for a base zone names: a node, or a device-dax region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.engine.base.online import find_base_zone
from zoned.engine.blocks.size import require_block_size
from zoned.errors import UnknownNode, UsageError
from zoned.kernel.dax import find_dax, is_dax_name, read_dax
from zoned.kernel.memory_block import read_block
from zoned.model.base import DaxMode

if TYPE_CHECKING:
    from zoned.engine.machine import Machine
    from zoned.model.base import DaxDevice
    from zoned.model.topology import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A base zone, or the part of one that a device-dax region is."""

    name: str
    """as it was asked for"""
    node: int
    dax: tuple[DaxDevice, ...] = ()
    """the regions that it is, or has in it"""
    blocks: tuple[Block, ...] = ()
    """as they are now; none before a region becomes memory"""

    @property
    def key(self) -> str:
        """What a job holds so that no other one works on the same node."""
        return key_of(self.node)


def key_of(node: int | None) -> str:
    """Return what jobs hold that add or remove memory of a node."""
    return f"node:{node}"


def find_target(machine: Machine, name: str) -> Target:
    """Return what a request names: ``4`` or ``dax0.0``.

    Raises UsageError, UnknownNode, NoSuchDax, Unsupported without memory hotplug.
    """
    size = require_block_size(machine.root)
    if is_dax_name(name):
        return _region(machine, name, size)
    if not name.isdecimal():
        raise UsageError(f"{name!r} is neither a node nor a device-dax region", hint="4, or dax0.0")
    zone = find_base_zone(machine, int(name))
    numbers = {block.id for block in zone.blocks}
    regions = (each for each in read_dax(machine.root) if each.mode is DaxMode.SYSTEM_RAM)
    return Target(
        name=name,
        node=zone.node,
        dax=tuple(each for each in regions if each.blocks(size) & numbers),
        blocks=zone.blocks,
    )


def _region(machine: Machine, name: str, size: int) -> Target:
    device = find_dax(machine.root, name)
    if device.node is None:
        raise UnknownNode(f"the firmware names no node for the memory of {name}")
    found = (read_block(machine.root, number) for number in sorted(device.blocks(size)))
    return Target(
        name=name,
        node=device.node,
        dax=(device,),
        blocks=tuple(block for block in found if block is not None),
    )
