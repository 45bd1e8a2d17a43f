# SPDX-License-Identifier: Apache-2.0
"""Bringing the blocks of a base zone online, and mending what came online as it should not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.base.offline import REFUSALS, take_offline
from zoned.engine.base.plan import plan_online, too_much_kernel
from zoned.engine.base.watch import note_race
from zoned.engine.blocks.back import give_back
from zoned.errors import BlockRefused, NotAsWritten, Partial, UnknownNode
from zoned.idset import format_ids
from zoned.kernel.base_zones import read_base_zones
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.kernel.memory_block import read_block
from zoned.model.block import MOVABLE, BlockWord
from zoned.model.migration import Outcome
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.errors import ZonedError
    from zoned.model.base import BaseZone
    from zoned.model.topology import Block


def find_base_zone(machine: Machine, node: int) -> BaseZone:
    """Return a base zone as it is now. Raises UnknownNode for one without memory blocks."""
    found = {zone.node: zone for zone in read_base_zones(machine.root)}
    if node not in found or not found[node].blocks:
        have = format_ids(zone.node for zone in found.values() if zone.blocks)
        raise UnknownNode(
            f"node {node} has no memory blocks", hint=f"nodes that have some: {have or 'none'}"
        )
    return found[node]


def bring_online(
    machine: Machine,
    hands: Hands,
    node: int,
    only: frozenset[int] | None = None,
    movable: frozenset[int] = frozenset(),
) -> None:
    """Bring all blocks of a node online that nobody holds, and mend the mix of their kinds.

    With `only` no other blocks are brought online. Those in `movable` become movable memory,
    however little is left to the kernel.

    May be begun again at any point. Raises UnknownNode, MachineError, Partial where blocks are not
    of the kind that they should be, and what a checkpoint raises.
    """
    with machine.turn.taken(hands), BlockSwitch(machine.root) as switch:
        work = _Onlining(machine, hands, node, switch, movable)
        work.add(only)
        work.mend()
    _tell(machine, hands, node)


class _Onlining:
    """The blocks of one node on their way."""

    def __init__(
        self,
        machine: Machine,
        hands: Hands,
        node: int,
        switch: BlockSwitch,
        movable: frozenset[int],
    ) -> None:
        self._machine, self._hands, self._node, self._switch = machine, hands, node, switch
        self._movable = movable
        self._done = 0

    def add(self, only: frozenset[int] | None) -> None:
        """Bring online what is offline. A block with which somebody else is first stays as that
        brought it, and the others are planned anew.
        """
        others: frozenset[int] = frozenset()
        while (block := self._bring(only, others)) is not None:
            self._tell_of_race(block)
            others |= {block.id}

    def _bring(self, only: frozenset[int] | None, others: frozenset[int]) -> Block | None:
        """Bring blocks online, but for those of others; return one that was just brought online by
        somebody else, at which this ended.
        """
        zone = find_base_zone(self._machine, self._node)
        sizes = {block.id: block.size or 0 for block in zone.blocks}
        stay = self._held() | others
        if only is not None:
            stay |= sizes.keys() - only
        steps = plan_online(zone, stay, self._machine.policy.movable_ratio, self._movable)
        self._hands.expect(self._done + sum(sizes[number] for number, _ in steps))
        for place, (number, word) in enumerate(steps):
            self._hands.checkpoint()
            self._hands.phase(
                f"bringing block {number} of node {self._node} online ({place + 1} of {len(steps)})"
            )
            other = self._switch_on(number, word, sizes[number])
            if other is not None:
                return other
        return None

    def _switch_on(self, number: int, word: BlockWord, size: int) -> Block | None:
        """Bring one block online; return it where somebody else did so first, in another way."""
        try:
            self._switch.switch(number, word, deadline=deadline_of(size))
        except (BlockRefused, NotAsWritten):
            block = read_block(self._machine.root, number)
            if block is None or block.state is not BlockState.ONLINE:
                raise
            return block
        self._done += size
        self._hands.count(Outcome.MOVED, size)
        return None

    def _tell_of_race(self, block: Block) -> None:
        self._hands.note(
            f"memory block {block.id} was brought online by somebody else meanwhile, as"
            f" {' or '.join(block.zones) or 'unknown'}"
        )
        if block.zones[:1] != (MOVABLE,):
            self._hands.change(lambda: note_race(self._machine, block.id))

    def mend(self) -> None:
        """Have memory that the kernel got for itself come back as movable, as far as it goes."""
        zone = find_base_zone(self._machine, self._node)
        ratio = self._machine.policy.movable_ratio
        wrong = too_much_kernel(zone, self._held(), ratio, self._movable)
        left = []
        for place, block in enumerate(wrong):
            self._hands.checkpoint()
            count = f"{place + 1} of {len(wrong)}"
            self._hands.phase(f"making block {block.id} of node {self._node} movable ({count})")
            if not self._make_movable(block):
                left.append(block.id)
        if left:
            raise Partial(
                f"memory blocks {format_ids(left)} of node {self._node} stay memory of the kernel's"
                " own",
                hint="pages of the kernel lie there; after a new plug zoned can be first",
            )

    def _make_movable(self, block: Block) -> bool:
        number, ledger = block.id, self._machine.ledger
        try:
            take_offline(self._machine, self._hands, self._switch, block)
        except REFUSALS as error:
            self._hands.checkpoint()
            self._hands.note(error.message)
            return False
        # Else the next start could not tell that it is done, and would undo it.
        held = replace(ledger.touched.blocks[number], emptied=True)
        self._hands.change(lambda: ledger.blocks_taken([held]))
        try:
            self._switch.switch(number, BlockWord.MOVABLE, deadline=deadline_of(block.size or 0))
        except REFUSALS as error:
            self._leave(number, error)
            return False
        self._hands.change(lambda: ledger.blocks_returned([number]))
        return True

    def _leave(self, number: int, error: ZonedError) -> None:
        """Leave a block that did not come back movable to who brought it online, or as it was."""
        ledger = self._machine.ledger
        block = read_block(self._machine.root, number)
        if block is None or block.state is BlockState.ONLINE:
            self._hands.change(lambda: ledger.blocks_returned([number]))
            if block is not None:
                self._tell_of_race(block)
            return
        self._hands.note(error.message)
        held = ledger.touched.blocks[number]
        give_back(self._machine, self._hands, [held], self._switch)

    def _held(self) -> frozenset[int]:
        return frozenset(self._machine.ledger.touched.blocks)


def _tell(machine: Machine, hands: Hands, node: int) -> None:
    zone = find_base_zone(machine, node)
    hands.note(
        f"node {node} has {len(zone.kernel)} blocks that the kernel can use for itself,"
        f" {len(zone.movable)} movable ones and {len(zone.offline)} offline"
    )
