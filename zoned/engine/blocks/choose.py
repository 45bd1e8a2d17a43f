# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a node may be taken, in which order. Pure.

Movable blocks come first: taking one changes nothing for the kernel. Of the others only so many
are taken that the node keeps memory that the kernel can use for itself, and of node 0's low memory
none but for devices. Source: Documentation/admin-guide/mm/memory-hotplug.rst ("ZONE_MOVABLE
Sizing Considerations").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.engine.blocks.outlook import rank
from zoned.errors import TooFewBlocks
from zoned.model.block import MOVABLE, RETURNING
from zoned.model.dma.held import reservation_of_owner
from zoned.model.dma.offer import LOW_ZONES
from zoned.model.topology import BlockState
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from zoned.model.block import HeldBlock, Outlook
    from zoned.model.topology import Block

_LOW = tuple((zone,) for zone in LOW_ZONES)
_HINT = "zonectl blocks list --why tells of each block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Blocks to try, best first, and how many of the kernel's own among them may be taken."""

    candidates: tuple[Block, ...]
    kernel_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which blocks are wanted, where that is for a device: then low memory may be taken, too.

    At the edges of a low zone one block stays: without it the zone would end before the next, and
    what lies beyond could not come back to it (default_kernel_zone_for_pfn in
    mm/memory_hotplug.c).
    """

    start: int = 0
    """the lowest address"""
    end: int
    """the first address behind the last"""
    low: bool
    """whether only blocks of the kernel's low zones will do"""

    def has(self, block: Block) -> bool:
        """Return whether a block is one of them."""
        inside = self.start <= block.start and block.start + (block.size or 0) <= self.end
        return inside and (is_low(block) or not self.low)


def is_low(block: Block) -> bool:
    """Return whether an online block is in one of the kernel's low zones, and in no other."""
    return block.state is BlockState.ONLINE and block.zones[:1] in _LOW


def is_movable(block: Block) -> bool:
    """Return whether an online block is in the kernel's zone for movable memory."""
    return block.state is BlockState.ONLINE and block.zones[:1] == (MOVABLE,)


def choose(
    node: int,
    count: int,
    outlooks: Iterable[Outlook],
    held: Mapping[int, HeldBlock],
    ratio: float,
    reach: Reach | None = None,
    only: Collection[int] | None = None,
) -> Choice:
    """Return what to try for `count` blocks of a node, of which all outlooks are given.

    `ratio` is the most movable memory for each byte that the kernel can use. With `only`, no others
    will do.

    Raises TooFewBlocks, with the numbers, where it is clear beforehand that there are not enough.
    """
    outlooks = [each for each in outlooks if each.block.node == node]
    free = [each for each in outlooks if _is_free(each.block, held)]
    left_out = _left_out(node, free, outlooks, reach)
    if only is not None:
        left_out["not asked for"] = {each.block.id for each in free} - set(only)
    kept = {block for blocks in left_out.values() for block in blocks}
    usable = rank(each for each in free if each.block.id not in kept)
    if reach is not None:
        # Neighbours: a program's buffer is to lie in one piece.
        usable.sort(
            key=lambda each: (each.can is None, not is_movable(each.block), -each.block.start)
        )
    allowed = _convertible([each.block for each in outlooks], held, ratio)
    from_kernel = [each for each in usable if not is_movable(each.block)]
    within_reach = len(usable) - len(from_kernel) + min(len(from_kernel), allowed)
    if within_reach < count:
        reasons = [
            f"{len(outlooks)} blocks of {_block_size(outlooks)} in all",
            f"{len(outlooks) - len(free)} offline or held already{_by_whom(outlooks, held)}",
            *(f"{len(blocks)} {why}" for why, blocks in left_out.items() if blocks),
            *_fixed(each for each in free if each.block.id not in kept),
            f"{allowed} of the kernel's own may go at movable:kernel {ratio:g}:1",
        ]
        hint = "" if reach else "; take a smaller size, another node, or backing reserve"
        raise TooFewBlocks(
            f"node {node} can give {within_reach} of {count} memory blocks: {'; '.join(reasons)}",
            hint=_HINT + hint,
        )
    return Choice(candidates=tuple(each.block for each in usable), kernel_blocks=allowed)


def _left_out(
    node: int, free: Iterable[Outlook], outlooks: Sequence[Outlook], reach: Reach | None
) -> dict[str, set[int]]:
    """Return why some blocks are not to be taken, whether they could go or not -> those blocks."""
    blocks = [each.block for each in free]
    if reach is None:
        low = {
            block.id
            for block in blocks
            if node == 0 and not is_movable(block) and set(LOW_ZONES) & set(block.zones)
        }
        return {"low memory, which devices need": low}
    beyond = {block.id for block in blocks if not reach.has(block)}
    edges = _edges([each.block for each in outlooks]) & {block.id for block in blocks}
    return {
        "not where the device reaches, or no low memory": beyond,
        "at the edge of a low zone, which would shrink": edges - beyond,
    }


def _edges(blocks: Iterable[Block]) -> set[int]:
    """Return the first and the last online block of each low zone, with those that it shares."""
    online = sorted(
        (block for block in blocks if block.state is BlockState.ONLINE), key=lambda each: each.id
    )
    zones = [
        [block for block in online if block.zones[:1] == zone or "none" in block.zones]
        for zone in _LOW
    ]
    return {edge.id for zone in zones for edge in zone[:1] + zone[-1:] if is_low(edge)}


def _block_size(outlooks: Iterable[Outlook]) -> str:
    return format_size(next((each.block.size for each in outlooks if each.block.size), None))


def _by_whom(outlooks: Iterable[Outlook], held: Mapping[int, HeldBlock]) -> str:
    owners = {held[each.block.id].owner for each in outlooks if each.block.id in held}
    names = sorted(filter(None, map(reservation_of_owner, owners)))
    return f" (some for reservation {', '.join(names)})" if names else ""


def _fixed(outlooks: Iterable[Outlook]) -> Iterator[str]:
    fixed = [each for each in outlooks if each.can is False]
    if fixed:
        yield f"{len(fixed)} cannot go offline ({fixed[0].why})"


def _is_free(block: Block, held: Mapping[int, HeldBlock]) -> bool:
    owner = held[block.id].owner if block.id in held else None
    return block.state is BlockState.ONLINE and owner in {None, RETURNING}


def _convertible(blocks: Sequence[Block], held: Mapping[int, HeldBlock], ratio: float) -> int:
    """Return how many of the kernel's blocks may become movable or go offline."""
    online = [block for block in blocks if block.state is BlockState.ONLINE]
    movable = sum(map(is_movable, online))
    away = sum(block.state is not BlockState.ONLINE and block.id in held for block in blocks)
    kernel = len(online) - movable
    return max(0, min(kernel - 1, int((ratio * kernel - movable - away) / (1 + ratio))))
