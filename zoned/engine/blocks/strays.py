# SPDX-License-Identifier: Apache-2.0
"""Pages that the kernel pushes away when a block goes offline: room for them, and the way back.

It moves them to other nodes first, whatever the cpusets of their owners say, and nothing brings
them back by itself. Source: mm/memory_hotplug.c (do_migrate_range).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import NoRoom, NoSuchProcess, ZonedError
from zoned.kernel.migrate import move_all_pages
from zoned.kernel.node import read_topology
from zoned.kernel.node_room import read_room
from zoned.kernel.process import all_pids, allowed_nodes
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.kernel.root import Root
    from zoned.model.block import Outlook

_PAGE = 4096


def refuse_without_refuge(machine: Machine, node: int, outlooks: Iterable[Outlook]) -> None:
    """Raise NoRoom where the pages in these blocks of the node find no place elsewhere.

    The kernel would try for ever.
    """
    pages = [each.pages for each in outlooks if each.pages is not None]
    to_move = sum(each.movable + each.huge for each in pages) * _PAGE
    leaving = sum(each.free for each in pages) * _PAGE
    rooms = {
        other: read_room(machine.root, other) for other in read_topology(machine.root).memory_nodes
    }
    room = sum(each.free + each.file_cache for each in rooms.values())
    if to_move > room - leaving:
        raise NoRoom(
            f"the blocks of node {node} hold {format_size(to_move)} that must move, and all nodes"
            f" together have room for {format_size(max(0, room - leaving))}",
            hint="free memory first, or take fewer blocks",
        )


def put_back_strays(machine: Machine, hands: Hands) -> None:
    """Move what confined processes have on nodes that they may not use to those that they may.

    What finds no room there stays, and is told. Raises what a checkpoint raises.
    """
    _put_back(machine, hands, hands.checkpoint)


def tidy_strays(machine: Machine, hands: Hands) -> None:
    """Put strays back at the end of work that may have failed or been cancelled.

    No checkpoint ends it, for those of a cancelled job would at once; and nothing that goes wrong
    hides why the work ended: it is told in a note.
    """
    try:
        _put_back(machine, hands, lambda: None)
    except (ZonedError, OSError) as error:
        hands.note(f"pages that were pushed off their nodes were not put back: {error}")


def _put_back(machine: Machine, hands: Hands, checkpoint: Callable[[], None]) -> None:
    hands.phase("putting back pages that were pushed off their nodes")
    left = 0
    for pid, nodes in _confined(machine.root):
        checkpoint()
        try:
            left += move_all_pages(machine.root, pid, nodes)
        except NoSuchProcess:
            continue
    if left:
        hands.note(f"{format_size(left * _PAGE)} of confined processes are still off their nodes")


def _confined(root: Root) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield the processes that may not use all memory, and the nodes that they may use."""
    every = read_topology(root).memory_nodes
    for pid in all_pids(root):
        allowed = allowed_nodes(root, pid)
        if allowed is not None and not every <= allowed and allowed & every:
            yield pid, allowed & every
