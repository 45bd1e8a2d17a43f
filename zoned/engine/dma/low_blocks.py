# SPDX-License-Identifier: Apache-2.0
"""Memory blocks of reservations: which are theirs, getting those that a device reaches, and giving
them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.blocks.back import give_back
from zoned.engine.blocks.choose import Reach
from zoned.engine.blocks.size import require_block_size
from zoned.engine.blocks.strays import tidy_strays
from zoned.engine.blocks.take import Wish, take
from zoned.engine.zones import capacity_of
from zoned.errors import NoCapacity, TooFewBlocks
from zoned.idset import format_ids
from zoned.kernel.block_state import BlockSwitch
from zoned.kernel.memory_block import read_blocks
from zoned.model.dma.held import dma_owner
from zoned.model.dma.offer import Span
from zoned.model.topology import BlockState
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.block import HeldBlock
    from zoned.model.dma.held import Held


def own_blocks(machine: Machine, held: Held) -> dict[int, HeldBlock]:
    """Return what the ledger has of a reservation's blocks, by number."""
    owner = dma_owner(held.name)
    return {
        number: each
        for number, each in machine.ledger.touched.blocks.items()
        if each.owner == owner
    }


def spans_of(numbers: Iterable[int], size: int) -> tuple[Span, ...]:
    """Return the addresses of blocks of `size` bytes, neighbours as one."""
    found: list[Span] = []
    for number in sorted(numbers):
        if found and found[-1].end == number * size:
            found[-1] = Span(found[-1].start, found[-1].size + size)
        else:
            found.append(Span(number * size, size))
    return tuple(found)


def nodes_below(machine: Machine, held: Held) -> list[int]:
    """Return the nodes with blocks that the device reaches all of: its own first, then those whose
    memory lies highest, for others may reach less far.
    """
    size = require_block_size(machine.root)
    highest: dict[int, int] = {}
    for block in read_blocks(machine.root):
        inside = block.start + size - 1 <= held.mask
        if inside and block.state is BlockState.ONLINE and block.node is not None:
            highest[block.node] = max(block.id, highest.get(block.node, 0))
    return sorted(highest, key=lambda node: (node != held.node, -highest[node]))


def take_below(
    machine: Machine, hands: Hands, held: Held, node: int, count: int, *, online: bool, low: bool
) -> tuple[int, ...]:
    """Take so many blocks of a node that the device reaches: offline, or online as movable memory.

    `low` wants them of the kernel's low zones. Raises what `take` raises, and NoCapacity where
    zones were promised what would go; nothing was taken then.
    """
    room = _room(machine, node)
    size = require_block_size(machine.root)
    if count * size > room:
        raise NoCapacity(
            f"node {node} can do without {format_size(max(0, room))}, and reservation {held.name}"
            f" needs {format_size(count * size)} of it",
            hint="zonectl status tells what its zones were promised",
        )
    reach = Reach(end=held.mask + 1, low=low)
    owner = dma_owner(held.name)
    return take(machine, hands, Wish(owner=owner, blocks={node: count}, online=online, reach=reach))


def take_spread(machine: Machine, hands: Hands, held: Held, count: int) -> tuple[int, ...]:
    """Take so many blocks of the kernel's low zones that the device reaches offline, of one node or
    of several. Raises TooFewBlocks where there are not so many; none was taken then.
    """
    reach = Reach(end=held.mask + 1, low=True)
    size = require_block_size(machine.root)
    taken: list[int] = []
    for node in nodes_below(machine, held):
        most = min(count - len(taken), max(0, _room(machine, node)) // size)
        if most:
            wish = Wish(
                owner=dma_owner(held.name),
                blocks={node: most},
                online=False,
                fewer=True,
                reach=reach,
            )
            taken += take(machine, hands, wish)
    if len(taken) < count:
        mine = own_blocks(machine, held)
        give(machine, hands, [mine[number] for number in taken if number in mine])
        raise TooFewBlocks(
            f"{len(taken)} of {count} memory blocks that the device reaches can go offline",
            hint="zonectl blocks list --why tells of each block",
        )
    return tuple(taken)


def give(machine: Machine, hands: Hands, held: Iterable[HeldBlock]) -> None:
    """Bring blocks back as they were found, and put back what the kernel pushed away for that.

    Blocks that cannot come back yet are tried again by whoever looks after memory blocks.
    """
    blocks = list(held)
    if not blocks:
        return
    with machine.turn.taken(hands), BlockSwitch(machine.root) as switch:
        left = give_back(machine, hands, blocks, switch)
        tidy_strays(machine, hands)
    if left:
        listed = format_ids(each.number for each in left)
        hands.note(f"memory blocks {listed} are not as they were found; it is tried again")


def _room(machine: Machine, node: int) -> int:
    """Return what the node can do without, in bytes."""
    found = capacity_of(machine)
    return found[node].available if node in found and found[node].master is None else 0
