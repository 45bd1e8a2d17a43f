# SPDX-License-Identifier: Apache-2.0
"""The nodes of a machine with their memory blocks, and where these are from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.kernel.iomem import RamMap, Resource, read_iomem
from zoned.kernel.memory_block import read_blocks
from zoned.kernel.node import read_topology
from zoned.kernel.srat import Pluggable, read_pluggable
from zoned.model.base import BaseSource, BaseZone, granules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.kernel.root import Root
    from zoned.model.topology import Block

_DRIVERS = {
    "System RAM (kmem)": BaseSource.KMEM,
    "System RAM (virtio_mem)": BaseSource.VIRTIO_MEM,
}
_CXL = "CXL Window"


def read_base_zones(root: Root) -> tuple[BaseZone, ...]:
    """Return the base zones by number. Where memory is from is known to root alone.

    Raises MachineError for a file that cannot be read.
    """
    machine = read_topology(root)
    parts = granules(machine.nodes)
    resources = read_iomem(root)
    ram = None if resources is None else RamMap(resources)
    pluggable = read_pluggable(root)
    by_node: dict[int | None, list[Block]] = {}
    for block in read_blocks(root):
        by_node.setdefault(block.node, []).append(block)
    return tuple(
        BaseZone(
            node=node.id,
            blocks=tuple(by_node.get(node.id, ())),
            sources=_count(by_node.get(node.id, ()), ram, pluggable),
            total=node.memory.total,
            part_of=parts.get(node.id, frozenset()),
        )
        for node in machine.nodes
    )


def _count(
    blocks: Sequence[Block], ram: RamMap | None, pluggable: Sequence[Pluggable] | None
) -> dict[BaseSource, int]:
    found: dict[BaseSource, int] = {}
    for block in blocks:
        source = _source(block, ram, pluggable)
        found[source] = found.get(source, 0) + 1
    return found


def _source(block: Block, ram: RamMap | None, pluggable: Sequence[Pluggable] | None) -> BaseSource:
    size = block.size or 1
    place = None if ram is None else ram.find(block.start, size)
    if place is None:
        return BaseSource.UNKNOWN
    return _named(place) or _plain(block.start, size, pluggable)


def _named(place: Resource) -> BaseSource | None:
    if any(name.startswith(_CXL) for name in place.above):
        return BaseSource.CXL
    return _DRIVERS.get(place.name)


def _plain(start: int, size: int, pluggable: Sequence[Pluggable] | None) -> BaseSource:
    """Tell what memory is from that has no driver of its own: the firmware knows."""
    if pluggable is None:
        return BaseSource.UNKNOWN
    is_dimm = any(each.has(start, size) for each in pluggable)
    return BaseSource.DIMM if is_dimm else BaseSource.BOOT
