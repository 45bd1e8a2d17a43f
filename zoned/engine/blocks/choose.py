# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a node may be taken, in which order. Pure.

Movable blocks come first: taking one changes nothing for the kernel. Of the others only so many
are taken that the node keeps memory that the kernel can use for itself, and none of node 0's low
memory, which devices need. Source: Documentation/admin-guide/mm/memory-hotplug.rst ("ZONE_MOVABLE
Sizing Considerations").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.engine.blocks.outlook import rank
from zoned.errors import TooFewBlocks
from zoned.model.block import MOVABLE, RETURNING
from zoned.model.topology import BlockState
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zoned.model.block import HeldBlock, Outlook
    from zoned.model.topology import Block

_LOW = frozenset({"DMA", "DMA32"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Blocks to try, best first, and how many of the kernel's own among them may be taken."""

    candidates: tuple[Block, ...]
    kernel_blocks: int


def is_movable(block: Block) -> bool:
    """Return whether an online block is in the kernel's zone for movable memory."""
    return block.state is BlockState.ONLINE and block.zones[:1] == (MOVABLE,)


def choose(
    node: int,
    count: int,
    outlooks: Iterable[Outlook],
    held: Mapping[int, HeldBlock],
    ratio: float,
) -> Choice:
    """Return what to try for `count` blocks of a node, of which all outlooks are given.

    `ratio` is the most movable memory for each byte that the kernel can use.

    Raises TooFewBlocks, with the numbers, where it is clear beforehand that there are not enough.
    """
    outlooks = [each for each in outlooks if each.block.node == node]
    free = [each for each in outlooks if _is_free(each.block, held)]
    kernel = [each for each in free if not is_movable(each.block)]
    low = [each for each in kernel if node == 0 and _LOW & set(each.block.zones)]
    usable = rank(each for each in free if each not in low)
    allowed = _convertible([each.block for each in outlooks], held, ratio)
    from_kernel = [each for each in usable if not is_movable(each.block)]
    within_reach = len(usable) - len(from_kernel) + min(len(from_kernel), allowed)
    if within_reach < count:
        raise _too_few(node, count, within_reach, outlooks, free, low, allowed, ratio)
    return Choice(candidates=tuple(each.block for each in usable), kernel_blocks=allowed)


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


def _too_few(
    node: int,
    count: int,
    within_reach: int,
    outlooks: Sequence[Outlook],
    free: Sequence[Outlook],
    low: Sequence[Outlook],
    allowed: int,
    ratio: float,
) -> TooFewBlocks:
    fixed = [each for each in free if each.can is False and each not in low]
    size = next((each.block.size for each in outlooks if each.block.size), None)
    reasons = [
        f"{len(outlooks)} blocks of {format_size(size)} in all",
        f"{len(outlooks) - len(free)} offline or held already",
    ]
    if low:
        reasons.append(f"{len(low)} low memory, which devices need")
    if fixed:
        reasons.append(f"{len(fixed)} cannot go offline ({fixed[0].why})")
    reasons.append(f"{allowed} of the kernel's own may go at movable:kernel {ratio:g}:1")
    return TooFewBlocks(
        f"node {node} can give {within_reach} of {count} memory blocks: {'; '.join(reasons)}",
        hint="zonectl blocks list --why tells of each block; take a smaller size, another node,"
        " or backing reserve",
    )
