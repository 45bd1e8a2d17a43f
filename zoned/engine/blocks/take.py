# SPDX-License-Identifier: Apache-2.0
"""Taking memory blocks: for a zone, as movable memory that is free; or to be parked, offline.

Each block is in the ledger before it is touched. Pages that the kernel pushed off the node are put
back while the blocks are still away, so that what the zone gets is free; where the work fails, once
the blocks are back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned.engine.blocks.back import give_back
from zoned.engine.blocks.choose import choose, is_movable
from zoned.engine.blocks.needs import held_on
from zoned.engine.blocks.size import require_block_size
from zoned.engine.blocks.strays import put_back_strays, refuse_without_refuge, tidy_strays
from zoned.engine.jobs.control import Cancelled
from zoned.errors import (
    BlockBusy,
    BlockRefused,
    BlockTimeout,
    Partial,
    TooFewBlocks,
    ZonedError,
)
from zoned.kernel.block_outlook import outlooks as look_ahead
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.kernel.compaction import compact
from zoned.kernel.memory_block import read_block, read_blocks
from zoned.kernel.slab import drop_slab
from zoned.model.block import BASE, PARKED, BlockWord, HeldBlock
from zoned.model.migration import Outcome
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.blocks.choose import Choice, Reach
    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.topology import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Blocks that an owner is to get in addition to those that it holds."""

    owner: str
    blocks: Mapping[int, int]
    """node -> how many"""
    online: bool
    """as movable memory; else they stay offline"""
    keep: bool = False
    """whether what was taken stays with the owner where it is not all"""
    fewer: bool = False
    """whether as many as can go will do"""
    reach: Reach | None = None
    """which will do, where they are for a device; parked ones do not then"""
    only: frozenset[int] | None = None
    """which blocks were named; no others will do"""


def take(machine: Machine, hands: Hands, wish: Wish) -> tuple[int, ...]:
    """Get the blocks: parked ones first, then the base zone's; return their numbers.

    Raises TooFewBlocks, NoRoom, Unsupported, and what ends a job. All that was taken is given back
    then, unless the wish says otherwise (Partial then, and it stays with the owner) or the job
    only pauses for a restart of the daemon.
    """
    with machine.turn.taken(hands), BlockSwitch(machine.root) as switch:
        work = _Taking(machine, hands, wish, switch)
        try:
            return work.run()
        except (ZonedError, Cancelled) as error:
            work.end(error)
            raise


class _Taking:
    """One wish being fulfilled."""

    def __init__(self, machine: Machine, hands: Hands, wish: Wish, switch: BlockSwitch) -> None:
        self._machine, self._hands, self._wish, self._switch = machine, hands, wish, switch
        self._size = require_block_size(machine.root)
        self._taken: list[int] = []
        self._pushed = False
        """whether the kernel was asked to empty a block"""

    def run(self) -> tuple[int, ...]:
        self._hands.expect(sum(self._wish.blocks.values()) * self._size)
        for node, count in self._wish.blocks.items():
            self._take_on(node, count)
        put_back_strays(self._machine, self._hands)
        if self._wish.online:
            self._bring_online()
        return tuple(self._taken)

    def end(self, error: ZonedError | Cancelled) -> None:
        """Give back what was taken, or keep it if that was wished; then put back what strayed."""
        try:
            self._give_back_or_keep(error)
        finally:
            if self._pushed:
                tidy_strays(self._machine, self._hands)

    def _give_back_or_keep(self, error: ZonedError | Cancelled) -> None:
        held = self._machine.ledger.touched.blocks
        mine = [held[number] for number in self._taken if number in held]
        if not mine:
            return
        if self._wish.keep and isinstance(error, ZonedError):
            raise Partial(f"{len(mine)} blocks were taken and are kept; then: {error}") from error
        if self._wish.keep:
            self._hands.note(f"kept: {format_size(len(mine) * self._size)}")
            return
        give_back(self._machine, self._hands, mine, self._switch)

    def _take_on(self, node: int, count: int) -> None:
        missing = count - self._take_parked(node, count)
        if not missing:
            return
        self._hands.phase(f"compacting node {node}")
        compact(self._machine.root, node)
        if self._wish.fewer:
            self._take_best(node, missing, self._look(node, 0))
            return
        got = self._take_best(node, missing, self._choose(node, missing))
        if got < missing:
            # What held pages may have let go meanwhile: a file being written, a page in transit.
            got += self._take_more(node, missing - got)
        if got < missing:
            raise TooFewBlocks(
                f"node {node} gave {got} of {missing} memory blocks, and no other one goes offline",
                hint="zonectl blocks list --why tells of each",
            )

    def _take_more(self, node: int, missing: int) -> int:
        """Look and try once more; return how many blocks that brought."""
        self._hands.note(
            f"node {node} still lacks {missing} blocks: all others are tried once more"
        )
        compact(self._machine.root, node)
        try:
            choice = self._look(node, missing)
        except TooFewBlocks:
            return 0
        return self._take_best(node, missing, choice)

    def _choose(self, node: int, missing: int) -> Choice:
        """Look at the node's blocks, a second time without what the kernel can do without."""
        try:
            return self._look(node, missing)
        except TooFewBlocks:
            self._hands.phase("having the kernel drop names and inodes that nobody uses")
            drop_slab(self._machine.root)
            return self._look(node, missing)

    def _look(self, node: int, missing: int) -> Choice:
        self._hands.phase(f"looking at the memory blocks of node {node}")
        blocks = [block for block in read_blocks(self._machine.root) if block.node == node]
        outlooks = list(look_ahead(self._machine.root, blocks))
        held = self._machine.ledger.touched.blocks
        ratio = self._machine.policy.movable_ratio
        wish = self._wish
        choice = choose(node, missing, outlooks, held, ratio, wish.reach, wish.only)
        first = {block.id for block in choice.candidates[:missing]}
        best = [each for each in outlooks if each.block.id in first]
        refuse_without_refuge(self._machine, node, best)
        return choice

    def _take_parked(self, node: int, count: int) -> int:
        if self._wish.owner == PARKED or not self._wish.online or self._wish.reach:
            return 0
        ledger = self._machine.ledger
        blocks = {block.id: block for block in read_blocks(self._machine.root)}
        parked = held_on(ledger.touched.blocks, PARKED, blocks, node)[:count]
        mine = [
            HeldBlock(number=each.number, owner=self._wish.owner, former=each.former, home=PARKED)
            for each in parked
        ]
        if mine:
            self._hands.change(lambda: ledger.blocks_taken(mine))
            self._taken += [each.number for each in mine]
            self._hands.count(Outcome.MOVED, len(mine) * self._size)
        return len(mine)

    def _take_best(self, node: int, missing: int, choice: Choice) -> int:
        got, kernel_blocks = 0, choice.kernel_blocks
        for block in choice.candidates:
            if got == missing:
                break
            if not is_movable(block) and not kernel_blocks:
                continue
            self._hands.checkpoint()
            self._hands.phase(f"taking block {block.id} of node {node} ({got + 1} of {missing})")
            if self._take_one(block):
                got += 1
                kernel_blocks -= not is_movable(block)
                self._hands.count(Outcome.MOVED, self._size)
        return got

    def _take_one(self, block: Block) -> bool:
        ledger, number = self._machine.ledger, block.id
        entry = HeldBlock(
            number=number, owner=self._wish.owner, former=(block.zones or (None,))[0], home=BASE
        )
        known = ledger.touched.blocks.get(number)
        self._hands.change(lambda: ledger.blocks_taken([entry]))
        self._pushed = True
        try:
            self._switch.switch(
                number,
                BlockWord.OFFLINE,
                deadline=deadline_of(self._size),
                give_up=lambda: self._hands.ends,
            )
        except (BlockBusy, BlockRefused, BlockTimeout) as error:
            if known is None:
                self._hands.change(lambda: ledger.blocks_returned([number]))
            else:
                self._hands.change(lambda: ledger.blocks_taken([known]))
            self._hands.checkpoint()
            self._hands.note(f"{error.message}; another one is tried")
            return False
        self._taken.append(number)
        return self._wish.reach is None or self._can_return(number, entry)

    def _can_return(self, number: int, entry: HeldBlock) -> bool:
        """Return whether a block could come back to the zone that it was in; if not, it comes back
        at once, as what it can be.
        """
        block = read_block(self._machine.root, number)
        if block is None or not block.zones or entry.former in block.zones:
            return True
        self._hands.note(
            f"memory block {number} was {entry.former} and could only come back as"
            f" {' or '.join(block.zones)}; another one is tried"
        )
        self._taken.remove(number)
        give_back(self._machine, self._hands, [entry], self._switch)
        return False

    def _bring_online(self) -> None:
        ledger = self._machine.ledger
        held = [ledger.touched.blocks[number] for number in self._taken]
        # Else one that was movable before could not be told from one that never went offline.
        self._hands.change(
            lambda: ledger.blocks_taken([replace(each, emptied=True) for each in held])
        )
        for place, number in enumerate(self._taken):
            self._hands.phase(f"bringing blocks back ({place + 1} of {len(self._taken)})")
            bring_movable(self._machine, self._switch, number)


def bring_movable(machine: Machine, switch: BlockSwitch, number: int) -> None:
    """Bring an offline block online as movable memory. Raises MachineError."""
    block = read_block(machine.root, number)
    deadline = deadline_of(block.size or 0 if block else 0)
    switch.switch(number, BlockWord.MOVABLE, deadline=deadline)
