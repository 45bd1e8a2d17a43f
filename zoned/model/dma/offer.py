# SPDX-License-Identifier: Apache-2.0
"""What the machine has that memory for a device could come from. None always means "unknown"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zoned.model.base import DaxDevice
    from zoned.model.block import Outlook

LOW_ZONES = ("DMA", "DMA32")
"""The kernel's zones that devices of short reach are served from."""
CMA_KEY = "cma"
LOW_KEY = "low"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A range of physical addresses, in bytes."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.size

    def below(self, mask: int) -> int:
        """Return how many of its bytes a device reaches whose highest address is `mask`."""
        return max(0, min(self.end, mask + 1) - self.start)


def without(spans: Iterable[Span], holes: Iterable[Span]) -> tuple[Span, ...]:
    """Return what of the spans is in no hole, in ascending order."""
    left = sorted(spans)
    for hole in holes:
        left = [
            piece
            for span in left
            for piece in (
                Span(span.start, min(span.end, hole.start) - span.start),
                Span(max(span.start, hole.end), span.end - max(span.start, hole.end)),
            )
            if piece.size > 0
        ]
    return tuple(left)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelZone:
    """One of the kernel's zones on one node (proc_zoneinfo(5)); sizes in bytes."""

    node: int
    name: str
    start: int | None = None
    spanned: int = 0
    """from its first page to its last, holes and all"""
    present: int = 0
    managed: int = 0
    """what the kernel gives out of it, in use or not"""
    free: int = 0
    cma: int = 0
    """what areas of the contiguous memory allocator have of it"""
    free_cma: int = 0
    """what of these is free"""
    protection: tuple[int, ...] = ()
    """what of it is kept from allocations that ask for each zone of the node, lowest zone first"""
    covered: bool = False
    """whether the same node has memory in a higher zone: only then can the kernel keep ordinary
    allocations out of this one"""

    @property
    def span(self) -> Span | None:
        """Its addresses; None where they are not known, or it has none."""
        return None if self.start is None or not self.spanned else Span(self.start, self.spanned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One machine, looked at once."""

    ram: tuple[Span, ...] | None = None
    """system memory that was there at boot; only root may know"""
    claimed: tuple[Span, ...] = ()
    """what in it the kernel or the boot loader has, as far as that is known"""
    pmem: tuple[Span, ...] = ()
    """what is persistent memory, or was set aside to be taken for some"""
    set_aside: tuple[Span, ...] = ()
    """what of that was ordinary memory, but for words on the command line of this boot"""
    x86: bool | None = None
    """whether the kernel takes `memmap=` on its command line"""
    regions: tuple[DaxDevice, ...] = ()
    zones: tuple[KernelZone, ...] | None = None
    ratio: tuple[int, ...] | None = None
    """`vm.lowmem_reserve_ratio`"""
    areas: tuple[Span, ...] | None = None
    """all CMA areas, each at the highest that it may lie"""
    block_size: int | None = None
    low_blocks: tuple[Outlook, ...] = ()
    """memory blocks that begin below 4 GiB"""
    huge_sizes: tuple[int, ...] = ()
    """sizes of huge pages that there are pools for"""
    taken: Mapping[str, int] = field(default_factory=dict)
    """bytes promised to somebody already: by name of a region, `CMA_KEY`, or `LOW_KEY`"""
    pending: tuple[Span, ...] = ()
    """what others are to have at the next boot"""

    @property
    def lowest(self) -> int | None:
        """The first address of memory."""
        spans = self._memory() if self.ram is None else self.ram
        return min((span.start for span in spans), default=None)

    @property
    def end(self) -> int | None:
        """The first address behind all memory."""
        return max((span.end for span in self._memory()), default=None)

    def most_below(self, mask: int) -> int | None:
        """Return how much memory lies where a device of that reach gets: never less than there is.

        Memory that was set aside for device-dax counts, too.
        """
        regions = sum(Span(*each).below(mask) for dax in self.regions for each in dax.ranges)
        if self.ram is not None:
            return regions + sum(span.below(mask) for span in self.ram)
        if self.zones is None:
            return None
        return regions + sum(
            min(zone.present, zone.span.below(mask)) for zone in self.zones if zone.span
        )

    def beyond(self, zone: KernelZone, mask: int) -> int:
        """Return the most memory of a zone that can lie beyond a device's reach."""
        span = zone.span or Span(0, 0)
        if self.ram is None:
            return span.size - span.below(mask)
        pieces = [
            Span(max(each.start, span.start), min(each.end, span.end) - max(each.start, span.start))
            for each in self.ram
        ]
        return sum(each.size - each.below(mask) for each in pieces if each.size > 0)

    def cma_below(self, mask: int) -> int:
        """Return how much of the kernel's CMA areas is known to lie where a device reaches."""
        if self.areas is not None:
            return sum(area.below(mask) for area in self.areas)
        return sum(
            zone.cma
            for zone in self.zones or ()
            if zone.span is not None and zone.span.end - 1 <= mask
        )

    @property
    def cma(self) -> int:
        """Return how much the kernel's CMA areas have in all."""
        return sum(zone.cma for zone in self.zones or ())

    def left(self, key: str, size: int) -> int:
        """Return what is left of something that was `size` bytes before others were promised it."""
        return max(0, size - self.taken.get(key, 0))

    def _memory(self) -> list[Span]:
        # Zones also span what was plugged in, but may begin where no memory is.
        spans = [zone.span for zone in self.zones or () if zone.span and zone.present]
        return [*(self.ram or ()), *spans]

    def blocks_below(self, mask: int) -> list[Outlook]:
        """Return the memory blocks that a device of that reach reaches all of."""
        size = self.block_size or 0
        return [each for each in self.low_blocks if each.block.start + size - 1 <= mask]

    def blocks_between(self, mask: int) -> list[Outlook]:
        """Return the online blocks of the kernel's low zones that it does not reach all of."""
        size = self.block_size or 0
        return [
            each
            for each in self.low_blocks
            if each.block.start + size - 1 > mask
            and each.block.state is BlockState.ONLINE
            and is_low(each)
        ]


def is_low(outlook: Outlook) -> bool:
    """Return whether a block is in a low zone of the kernel, or can come back to one.

    A block with memory of several zones (``none``) is at an edge of one, and counts.
    """
    zones = set(outlook.block.zones)
    return bool(zones & {*LOW_ZONES, "none"})
