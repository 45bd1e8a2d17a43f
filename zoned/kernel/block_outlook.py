# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel would let a memory block go offline, and what keeps it.

Sources: Documentation/admin-guide/mm/memory-hotplug.rst ("ZONE_MOVABLE", "Considerations"),
mm/memory_hotplug.c (offline_pages) and mm/page_isolation.c (has_unmovable_pages).

The attribute `removable` says nothing: it is always 1. What decides is what the pages are, which
/proc/kpageflags tells, so a prediction is as old as that look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import Unsupported
from zoned.kernel.zone_lists import pages_at_hand
from zoned.model.block import BALLOONED, GIGANTIC, MOVABLE, OTHER, PLAIN, RESERVED, Outlook
from zoned.model.topology import BlockState
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zoned.kernel.root import Root
    from zoned.model.block import BlockPages
    from zoned.model.topology import Block

_EVERYWHERE = frozenset({RESERVED, GIGANTIC})
"""What also keeps movable memory."""
_WORDS = {OTHER: "other kernel memory", PLAIN: "plain kernel memory"}
_NOT_SEEN = "its pages cannot be seen"


def outlook(
    block: Block, pages: BlockPages | None, *, at_hand: int = 0, unseen: str = _NOT_SEEN
) -> Outlook:
    """Return whether the block can go offline, as far as `pages` and its zones tell.

    `at_hand` is how many free pages CPUs keep in the block's zone, any of which could be in this
    block. `unseen` is why `pages` is None.
    """
    if (why := _known_beforehand(block)) is not None:
        return Outlook(block=block, can=False, why=why, pages=pages)
    if pages is None:
        return Outlook(block=block, can=None, why=unseen)
    if pages.holes:
        why = f"it has holes: {_size(block, pages, pages.holes)} of it are no memory"
        return Outlook(block=block, can=False, why=why, pages=pages)
    doubtful = _doubtful(block, pages, at_hand)
    kept = {kind: number for kind, number in pages.unmovable.items() if kind not in doubtful}
    if kept:
        why = f"{_sizes(block, pages, kept)} cannot move"
        return Outlook(block=block, can=False, why=why, pages=pages)
    reasons = [f"{_size(block, pages, number)} {why}" for number, why in doubtful.values() if why]
    return Outlook(block=block, can=None if reasons else True, why="; ".join(reasons), pages=pages)


def outlooks(root: Root, blocks: Iterable[Block]) -> Iterator[Outlook]:
    """Yield what `outlook` says of each block, looking at the pages of those that are online.

    Where the kernel does not show its pages, `can` is None and `why` says so. Raises MachineError
    where what is there cannot be read.
    """
    # numpy takes long to import, and most commands do without it.
    from zoned.kernel.block_pages import BlockReader

    try:
        reader = BlockReader(root)
    except Unsupported as error:
        for block in blocks:
            yield outlook(block, None, unseen=error.message)
        return
    with reader:
        for block in blocks:
            seen = block.state is BlockState.ONLINE and block.size is not None
            # They come and go: those of a moment ago say nothing of now.
            hands = pages_at_hand(root) if seen else {}
            pages = reader.read(block) if seen else None
            yield outlook(block, pages, at_hand=_at_hand(block, hands))


def _at_hand(block: Block, hands: Mapping[tuple[int, str], int]) -> int:
    return sum(
        number
        for (node, zone), number in hands.items()
        if zone in block.zones and block.node in {node, None}
    )


def _known_beforehand(block: Block) -> str | None:
    """Return what keeps a block that has nothing to do with its pages; None for nothing."""
    if block.state is BlockState.OFFLINE:
        return "it is offline"
    if block.state is BlockState.GOING_OFFLINE:
        return "it is on its way out"
    if "none" in block.zones:
        return "it has holes, or memory of several zones or nodes"
    return None


def _doubtful(block: Block, pages: BlockPages, at_hand: int) -> dict[str, tuple[int, str]]:
    """Return kind -> pages that may keep the block or not, and why; no reason if they do not."""
    found: dict[str, tuple[int, str]] = {}
    for kind, number in pages.unmovable.items():
        if kind == BALLOONED:
            found[kind] = number, "ballooned, its driver decides"
        elif block.zones == (MOVABLE,) and kind not in _EVERYWHERE:
            # What looks like the kernel's own there is on its way from one list to another.
            found[kind] = number, ""
        elif kind == PLAIN and number <= at_hand:
            found[kind] = number, "may be the kernel's, or free"
    return found


def _sizes(block: Block, pages: BlockPages, kinds: Mapping[str, int]) -> str:
    """Return e.g. ``1.5MiB slab and 16KiB page tables``, the most first."""
    most_first = sorted(kinds.items(), key=lambda each: -each[1])
    parts = [
        f"{_size(block, pages, number)} {_WORDS.get(kind, kind)}" for kind, number in most_first
    ]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _size(block: Block, pages: BlockPages, number: int) -> str:
    return format_size(number * (block.size or 0) // pages.total)
