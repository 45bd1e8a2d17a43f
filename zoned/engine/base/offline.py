# SPDX-License-Identifier: Apache-2.0
"""Taking the blocks of a base zone offline, all of them or none.

Sources: Documentation/admin-guide/mm/memory-hotplug.rst, Documentation/admin-guide/sysctl/vm.rst
(drop_caches).
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from zoned.engine.base.plan import leaving_order, leaving_refused
from zoned.engine.blocks.back import give_back
from zoned.engine.blocks.strays import put_back_strays, tidy_strays
from zoned.engine.jobs.control import Cancelled
from zoned.engine.migration.room import refuse_without_room, rooms
from zoned.errors import (
    BlockBusy,
    BlockRefused,
    BlockTimeout,
    NotAsWritten,
    Partial,
    ZonedError,
)
from zoned.idset import format_ids
from zoned.kernel.block_outlook import outlooks as survey
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.kernel.memory_block import read_block
from zoned.kernel.node import read_topology
from zoned.kernel.node_room import read_room
from zoned.kernel.slab import drop_slab
from zoned.model.block import CHANGING, BlockWord, HeldBlock
from zoned.model.migration import Outcome
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.model.topology import Block

_log = logging.getLogger(__name__)

REFUSALS = (BlockBusy, BlockRefused, BlockTimeout, NotAsWritten)
"""What the kernel can have against one block."""

_TRIES = 5
_PAUSE = 1.0


def take_offline(machine: Machine, hands: Hands, switch: BlockSwitch, block: Block) -> None:
    """Take one block offline, with an entry in the ledger that brings it back.

    Raises what BlockSwitch raises; the block is then as it was, and not in the ledger.
    """
    ledger, number = machine.ledger, block.id
    former = block.zones[0] if block.state is BlockState.ONLINE and block.zones else None
    entry = HeldBlock(number=number, owner=CHANGING, former=former)
    hands.change(lambda: ledger.blocks_taken([entry]))
    try:
        switch.switch(
            number,
            BlockWord.OFFLINE,
            deadline=deadline_of(block.size or 0),
            give_up=lambda: hands.ends,
        )
    except REFUSALS:
        hands.change(lambda: ledger.blocks_returned([number]))
        raise


def refuse_without_refuge(machine: Machine, node: int, blocks: Iterable[Block], what: str) -> None:
    """Raise NoRoom where what is in use in these blocks of a node does not fit anywhere else.

    The kernel would try to move it there for ever.
    """
    topology = read_topology(machine.root)
    found = topology.node(node)
    if found is None or not found.memory.total:
        return
    leaving = sum(block.size or 0 for block in blocks if block.state is BlockState.ONLINE)
    room = read_room(machine.root, node)
    used = found.memory.total - (found.memory.free or 0) - room.file_cache
    others = topology.memory_nodes
    if leaving >= found.memory.total:
        others -= {node}
    refuse_without_room(what, max(0, min(used, leaving)), rooms(machine, others))


class Leaving:
    """The blocks of a base zone on their way out."""

    def __init__(
        self, machine: Machine, control: JobControl, node: int, blocks: Sequence[Block]
    ) -> None:
        self._machine, self._control, self._node = machine, control, node
        self._blocks = leaving_order(block for block in blocks if block.state)
        self._numbers = [block.id for block in blocks]
        self._pushed = False
        """whether the kernel was asked to empty a block"""

    def run(self, switch: BlockSwitch, *, keep: bool) -> None:
        """Take all blocks offline, and put back what strayed.

        Raises NodeInUse, NoRoom, what BlockSwitch raises (NotAsWritten also where a block came back
        online meanwhile), Partial. What was taken is brought back
        then, or stays offline with `keep`.
        """
        self._control.expect(sum(block.size or 0 for block in self._blocks))
        try:
            for place, block in enumerate(self._blocks):
                self._control.checkpoint()
                self._control.phase(
                    f"taking block {block.id} of node {self._node} offline"
                    f" ({place + 1} of {len(self._blocks)})"
                )
                self._take(switch, block)
                self._control.count(Outcome.MOVED, block.size or 0)
            put_back_strays(self._machine, self._control)
            self._refuse_zones()
            self._refuse_online()
        except (ZonedError, Cancelled) as error:
            self._end(switch, error, keep=keep)
            raise

    def settle(self) -> None:
        """Forget the blocks: they are gone for good."""
        numbers = self._taken()
        self._control.change(
            lambda: self._machine.ledger.blocks_returned(each.number for each in numbers)
        )

    def _take(self, switch: BlockSwitch, block: Block) -> None:
        """Take a block, again and again where the kernel has something in it that may go."""
        for left in reversed(range(_TRIES)):
            self._refuse_zones()
            now = read_block(self._machine.root, block.id)
            if now is None or now.state is BlockState.OFFLINE:
                return
            self._pushed = True
            try:
                take_offline(self._machine, self._control, switch, now)
            except REFUSALS as error:
                # One that was stopped because the job is to end is no refusal.
                self._control.checkpoint()
                if not left and isinstance(error, BlockBusy):
                    raise _explained(self._machine, now, error) from error
                if not isinstance(error, BlockBusy):
                    raise
                # What file systems remember lies in memory of the kernel's own.
                drop_slab(self._machine.root)
                self._control.wait(_PAUSE)
            else:
                return

    def _refuse_zones(self) -> None:
        machine = self._machine
        zones, held = machine.store.zones.values(), machine.ledger.touched.blocks
        refusal = leaving_refused(self._node, zones, self._numbers, held)
        if refusal is not None:
            raise refusal

    def _refuse_online(self) -> None:
        """Raise NotAsWritten where somebody else brought a block online again, for what lies there
        is lost with the module.
        """
        online = frozenset(self._numbers) - self._offline()
        if online:
            raise NotAsWritten(
                f"memory blocks {format_ids(online)} of node {self._node} were brought online by"
                " somebody else meanwhile",
                hint="a udev rule or another program may do so; keep it from that and try again",
            )

    def _offline(self) -> frozenset[int]:
        """Return the blocks that are offline, or gone."""
        found = ((number, read_block(self._machine.root, number)) for number in self._numbers)
        return frozenset(
            number
            for number, block in found
            if block is None or block.state is not BlockState.ONLINE
        )

    def _end(self, switch: BlockSwitch, error: Exception, *, keep: bool) -> None:
        """Bring back what was taken, or leave it offline if that was wished."""
        taken = self._offline() & {each.number for each in self._taken()}
        if keep and taken and isinstance(error, ZonedError):
            listed = format_ids(taken)
            self.settle()
            self._tidy()
            raise Partial(f"memory blocks {listed} are offline, then: {error}") from error
        self.bring_back(switch)

    def bring_back(self, switch: BlockSwitch) -> None:
        """Bring online what was taken, as it was found; then put back what strayed."""
        taken = self._taken()
        left = give_back(self._machine, self._control, taken, switch) if taken else []
        if left:
            _log.warning("blocks %s are not as they were", format_ids(_numbers(left)))
        self._tidy()

    def _tidy(self) -> None:
        if self._pushed:
            tidy_strays(self._machine, self._control)

    def _taken(self) -> list[HeldBlock]:
        held = self._machine.ledger.touched.blocks
        mine = (held[number] for number in self._numbers if number in held)
        return [each for each in mine if each.owner == CHANGING]


def _explained(machine: Machine, block: Block, error: BlockBusy) -> BlockBusy:
    """Return the error with what lies in the block, as far as that can be told."""
    why = ""
    with contextlib.suppress(ZonedError):
        why = next((each.why for each in survey(machine.root, [block])), "")
    return BlockBusy(
        error.message + (f" ({why})" if why else ""),
        hint="programs that were started there and still run, and groups that were made meanwhile,"
        " may have left something of the kernel's there; stop them and try again. Memory that must"
        " leave is best added with --movable-only",
    )


def _numbers(held: Iterable[HeldBlock]) -> list[int]:
    return [each.number for each in held]
