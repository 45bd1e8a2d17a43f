# SPDX-License-Identifier: Apache-2.0
"""Base zones that come and go: where their memory is from, and what they are parts of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned.model.block import MOVABLE, BlockWord
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zoned.model.topology import Block, Node

_LOCAL = 10
"""The distance of a node to itself (ACPI, System Locality Information Table)."""


class BaseSource(StrEnum):
    """Where memory is from."""

    BOOT = "boot"
    """the machine started with it, and it does not go"""
    DIMM = "dimm"
    """where the firmware says that memory can be plugged in and pulled"""
    KMEM = "kmem"
    """a device-dax region in use as system memory"""
    VIRTIO_MEM = "virtio-mem"
    """the host gives and takes it"""
    CXL = "cxl"
    """behind a CXL window"""
    UNKNOWN = "unknown"


class DaxMode(StrEnum):
    """What a device-dax region is used as, in the words of daxctl(1)."""

    DEVDAX = "devdax"
    SYSTEM_RAM = "system-ram"
    DISABLED = "disabled"
    """no driver has it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaxDevice:
    """A device-dax region: memory that programs map, or that becomes a base zone."""

    name: str
    size: int | None
    """bytes"""
    node: int | None
    """the node that its memory is on, or would be"""
    mode: DaxMode
    ranges: tuple[tuple[int, int], ...] = ()
    """start and size of its physical ranges; none where only root may know them"""
    align: int | None = None
    """bytes that mappings of it are aligned to; None where the kernel does not say"""

    def blocks(self, block_size: int) -> frozenset[int]:
        """Return the memory blocks that lie wholly in it: the kernel leaves the others out."""
        return frozenset(
            number
            for start, size in self.ranges
            for number in range(-(-start // block_size), (start + size) // block_size)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseZone:
    """A node that has memory blocks, or memory."""

    node: int
    blocks: tuple[Block, ...] = ()
    sources: Mapping[BaseSource, int] = field(default_factory=dict)
    """source -> how many of the blocks are from there"""
    total: int | None = None
    """bytes that are in use as memory"""
    part_of: frozenset[int] = frozenset()
    """the nodes that are granules of the same physical node, this one among them; none where the
    node is one of its own"""

    @property
    def source(self) -> BaseSource:
        """Where its memory is from: boot, if any of it is, else where most is from."""
        if BaseSource.BOOT in self.sources or not self.sources:
            return BaseSource.BOOT if self.sources else BaseSource.UNKNOWN
        return max(self.sources, key=lambda each: (self.sources[each], each.value))

    @property
    def is_fixed(self) -> bool:
        """Whether the machine started with some of its memory, or may have done so."""
        return BaseSource.BOOT in self.sources or BaseSource.UNKNOWN in self.sources

    @property
    def removable(self) -> bool | None:
        """Whether its memory can leave the machine; None where that is not known."""
        if self.source is BaseSource.UNKNOWN:
            return None
        return self.source is not BaseSource.BOOT

    @property
    def movable(self) -> tuple[Block, ...]:
        """Its blocks that are online in the kernel's zone for movable memory."""
        return tuple(each for each in self.online if each.zones[:1] == (MOVABLE,))

    @property
    def kernel(self) -> tuple[Block, ...]:
        """Its blocks that are online as memory that the kernel can use for itself."""
        return tuple(each for each in self.online if each.zones[:1] != (MOVABLE,))

    @property
    def online(self) -> tuple[Block, ...]:
        """Its blocks that are in use."""
        return tuple(each for each in self.blocks if each.state is BlockState.ONLINE)

    @property
    def offline(self) -> tuple[Block, ...]:
        """Its blocks that are not in use."""
        return tuple(each for each in self.blocks if each.state is BlockState.OFFLINE)


def granules(nodes: Iterable[Node]) -> dict[int, frozenset[int]]:
    """Return node -> the nodes of the same physical node; what is a node of its own is left out.

    Firmware cannot say that two nodes are as close as one (the kernel refuses such a table), so a
    distance of 10 between two of them is the kernel's own splitting: `numa=fake`
    (Documentation/arch/x86/x86_64/fake-numa-for-cpusets.rst).
    """
    found = {}
    for node in nodes:
        near = {other for other, far in node.distances.items() if far == _LOCAL}
        if near - {node.id}:
            found[node.id] = frozenset(near | {node.id})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Hotplug:
    """What zoned keeps in mind where it brings new memory online itself."""

    former: BlockWord | None
    """what `auto_online_blocks` said before; None where it is as it was"""
    said: BlockWord = BlockWord.OFFLINE
    """what it said when zoned last looked for new blocks, or since"""
    known: frozenset[int] = frozenset()
    """memory blocks that are not new any more"""
    raced: frozenset[int] = frozenset()
    """blocks that somebody else brought online first, as memory of the kernel's own"""
    by: str = ""
    """who that was, as far as it can be told"""
