# SPDX-License-Identifier: Apache-2.0
"""What becomes of the memory blocks of a base zone that comes, and whether one may go. Pure.

The first blocks come online as memory that the kernel can use for itself, one in four (unless the
policy says `movable_ratio`) and at least one: a cpuset of movable memory alone cannot map anything.
The rest comes as movable memory, the only kind that can leave again. Blocks that are meant to be
movable in any case are so, and count for nothing here. Source:
Documentation/admin-guide/mm/memory-hotplug.rst ("ZONE_MOVABLE Sizing Considerations").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zoned.errors import NodeInUse, NotRemovable
from zoned.idset import format_ids
from zoned.model.block import MOVABLE, PARKED, BlockWord
from zoned.model.dma.held import reservation_of_owner
from zoned.model.policy import MOVABLE_RATIO

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from zoned.model.base import BaseZone
    from zoned.model.block import HeldBlock
    from zoned.model.topology import Block
    from zoned.model.zone import Zone


def kernel_share(total: int, ratio: float = MOVABLE_RATIO) -> int:
    """Return how many of `total` blocks have to be memory that the kernel can use for itself."""
    return max(1, math.ceil(total / (1 + ratio))) if total else 0


def plan_online(
    zone: BaseZone,
    held: Collection[int] = (),
    ratio: float = MOVABLE_RATIO,
    movable: Collection[int] = (),
) -> list[tuple[int, BlockWord]]:
    """Return what to write to the blocks that are offline, lowest address first.

    Blocks that are `held` stay offline, and count for nothing. A block that cannot be of the kind
    that it should be is of the other.
    """
    new = [block for block in zone.offline if block.id not in held]
    counted = sum(block.id not in movable for block in (*zone.online, *new))
    missing = kernel_share(counted, ratio) - len(zone.kernel)
    steps = []
    for block in new:
        wanted = missing > 0 and block.id not in movable
        word = BlockWord.KERNEL if wanted else BlockWord.MOVABLE
        word = _possible(block, word)
        missing -= word is BlockWord.KERNEL
        steps.append((block.id, word))
    return steps


def too_much_kernel(
    zone: BaseZone,
    held: Collection[int] = (),
    ratio: float = MOVABLE_RATIO,
    movable: Collection[int] = (),
) -> tuple[Block, ...]:
    """Return the blocks that are memory of the kernel's own and should be movable, last one first.

    Where the machine started with some of the memory it is as it should be, but for `movable`.
    """
    counted = [block for block in zone.kernel if block.id not in movable]
    share = kernel_share(sum(block.id not in movable for block in zone.online), ratio)
    right = {block.id for block in (counted if zone.is_fixed else counted[:share])}
    return tuple(block for block in reversed(zone.kernel) if block.id not in right | {*held})


def leaving_refused(
    node: int, zones: Iterable[Zone], blocks: Iterable[int], held: Mapping[int, HeldBlock]
) -> NodeInUse | None:
    """Return why the base zone may not go: who is there. None where it may."""
    names = sorted(zone.name for zone in zones if node in zone.mems)
    if names:
        return NodeInUse(
            f"node {node} is in use by zone {', '.join(names)}",
            hint=f"zonectl move {names[0]} --nodes LIST, or zonectl destroy {names[0]}",
        )
    parked = [number for number in blocks if number in held and held[number].owner == PARKED]
    if parked:
        return NodeInUse(
            f"memory blocks {format_ids(parked)} of node {node} are parked",
            hint="zonectl blocks unpark gives them back",
        )
    mine = {
        number: name
        for number in blocks
        if number in held and (name := reservation_of_owner(held[number].owner))
    }
    if mine:
        listed = ", ".join(sorted(set(mine.values())))
        return NodeInUse(
            f"memory blocks {format_ids(mine)} of node {node} are held for reservation {listed}",
            hint=f"zonectl dma release {min(mine.values())}",
        )
    return None


def refuse_fixed(zone: BaseZone, every: Iterable[BaseZone]) -> None:
    """Raise NotRemovable for a base zone whose memory cannot leave."""
    if zone.removable is False:
        raise NotRemovable(
            f"the machine started with the memory of node {zone.node}, and it cannot leave",
            hint="zonectl base list tells which can",
        )
    if not any(other.kernel for other in every if other.node != zone.node):
        raise NotRemovable(
            f"node {zone.node} has all the memory that the kernel can use for itself"
        )


def leaving_order(blocks: Iterable[Block]) -> list[Block]:
    """Return the blocks in the order in which they go: movable ones first, from the end.

    What the kernel has for itself goes last, when nothing draws it there any more.
    """
    return sorted(blocks, key=lambda block: (block.zones[:1] != (MOVABLE,), -block.start))


def _possible(block: Block, word: BlockWord) -> BlockWord:
    kinds = {each == MOVABLE for each in block.zones}
    if kinds == {True}:
        return BlockWord.MOVABLE
    return BlockWord.KERNEL if kinds == {False} else word
