# SPDX-License-Identifier: Apache-2.0
"""The rung `blocks`: memory blocks below the limit are held offline while no device is there, and
become memory of the kernel's low zone when one appears.

Blocks between the limit and 4 GiB are made movable, so that what the kernel gives out as low memory
is what the device reaches. Source: Documentation/admin-guide/mm/memory-hotplug.rst.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned.engine.blocks.choose import Reach, is_low
from zoned.engine.blocks.size import require_block_size
from zoned.engine.blocks.strays import tidy_strays
from zoned.engine.blocks.take import Wish, take
from zoned.engine.dma.low_blocks import give, own_blocks, spans_of, take_spread
from zoned.engine.jobs.control import Cancelled
from zoned.errors import BlockBusy, BlockRefused, BlockTimeout, NotAsWritten, ZonedError
from zoned.idset import format_ids
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.kernel.memory_block import read_block, read_blocks
from zoned.model.block import MOVABLE, BlockWord
from zoned.model.dma.held import dma_owner
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.dma.held import Held
    from zoned.model.topology import Block

_LOW_END = 1 << 32
_REFUSALS = (BlockBusy, BlockRefused, BlockTimeout, NotAsWritten)


class Blocks:
    """See Holder."""

    def hold(self, machine: Machine, hands: Hands, held: Held) -> Held:
        """See Holder. Raises TooFewBlocks, NotAsWritten where a block came back in another zone
        than it was in, and what `take` raises.
        """
        if held.standing:
            return _Work(machine, hands, held).run()
        give(machine, hands, own_blocks(machine, held).values())
        try:
            return _Work(machine, hands, held).run()
        except (ZonedError, Cancelled):
            give(machine, hands, own_blocks(machine, held).values())
            raise

    def faults(self, machine: Machine, held: Held) -> list[str]:
        """See Holder."""
        found = (read_block(machine.root, each) for each in (*held.blocks, *held.above))
        blocks = {block.id: block for block in found if block is not None}
        return [*_faults_below(machine, held, blocks), *_faults_above(machine, held, blocks)]

    def release(self, machine: Machine, hands: Hands, held: Held) -> None:
        """See Holder. A block that does not come back as it was is on record as owed."""
        give(machine, hands, own_blocks(machine, held).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Where:
    """The blocks of a reservation."""

    below: tuple[int, ...]
    above: tuple[int, ...]


class _Work:
    """One reservation being set up, or repaired."""

    def __init__(self, machine: Machine, hands: Hands, held: Held) -> None:
        self._machine, self._hands, self._held = machine, hands, held
        self._size = require_block_size(machine.root)

    def run(self) -> Held:
        waits, stands = not self._held.devices, self._held.standing
        below = self._held.blocks
        if waits or not stands:
            below = self._offline()
        above = self._held.above if stands else self._make_movable()
        if not waits:
            self._bring_in(below)
        return replace(
            self._held,
            blocks=tuple(sorted(below)),
            above=tuple(sorted(above)),
            spans=spans_of(below, self._size),
        )

    def _offline(self) -> tuple[int, ...]:
        """Hold as many blocks offline as the size takes; return them.

        What the kernel had meanwhile may not come back: others are taken for it.
        """
        held = own_blocks(self._machine, self._held).keys() & set(self._held.blocks)
        kept = self._take_again(sorted(held))
        lost = held - set(kept)
        if lost:
            self._hands.change(lambda: self._machine.ledger.blocks_returned(lost))
        missing = -(-self._held.size // self._size) - len(kept)
        if missing <= 0:
            return tuple(kept)
        return (*kept, *take_spread(self._machine, self._hands, self._held, missing))

    def _take_again(self, numbers: Sequence[int]) -> list[int]:
        kept = []
        with self._machine.turn.taken(self._hands), BlockSwitch(self._machine.root) as switch:
            for number in numbers:
                self._hands.phase(f"taking memory block {number} offline")
                try:
                    self._switch(switch, number, BlockWord.OFFLINE)
                except _REFUSALS as error:
                    self._hands.checkpoint()
                    self._hands.note(f"{error.message}; it stays with the kernel")
                else:
                    kept.append(number)
            if numbers:
                tidy_strays(self._machine, self._hands)
        return kept

    def _make_movable(self) -> tuple[int, ...]:
        """Make what blocks above the limit can be movable; return them, and tell of the others."""
        taken: list[int] = []
        for node, many in self._low_above().items():
            wish = Wish(
                owner=dma_owner(self._held.name),
                blocks={node: many},
                online=True,
                fewer=True,
                reach=self._beyond,
            )
            try:
                taken += take(self._machine, self._hands, wish)
            except ZonedError as error:
                # What lies below holds without: it is only that the kernel may look elsewhere.
                self._hands.note(error.message)
        left = [block.id for block in self._blocks_above()]
        if left:
            self._hands.note(
                f"memory blocks {format_ids(left)} between the limit and 4GiB stay in the kernel's"
                " low zone: what it gives a driver may still come from there"
            )
        return tuple(taken)

    @property
    def _beyond(self) -> Reach:
        first = (self._held.mask + 1) // self._size * self._size
        return Reach(start=first, end=_LOW_END, low=True)

    def _blocks_above(self) -> Iterator[Block]:
        """Yield blocks of the kernel's low zones that the device does not reach all of."""
        return (block for block in read_blocks(self._machine.root) if self._beyond.has(block))

    def _low_above(self) -> Mapping[int, int]:
        found: dict[int, int] = {}
        for block in self._blocks_above():
            if block.node is not None:
                found[block.node] = found.get(block.node, 0) + 1
        return found

    def _bring_in(self, numbers: Iterable[int]) -> None:
        """Give the blocks to the kernel, as memory of the zone that they were in."""
        mine = own_blocks(self._machine, self._held)
        with self._machine.turn.taken(self._hands), BlockSwitch(self._machine.root) as switch:
            for number in sorted(numbers):
                self._hands.phase(f"giving memory block {number} to the kernel")
                self._switch(switch, number, BlockWord.KERNEL)
                former = mine[number].former if number in mine else None
                _refuse_other_zone(read_block(self._machine.root, number), former)

    def _switch(self, switch: BlockSwitch, number: int, word: BlockWord) -> None:
        give_up = lambda: word is BlockWord.OFFLINE and self._hands.ends  # noqa: E731
        switch.switch(number, word, deadline=deadline_of(self._size), give_up=give_up)


def _refuse_other_zone(block: Block | None, former: str | None) -> None:
    if block is not None and former is not None and block.zones[:1] != (former,):
        raise NotAsWritten(
            f"memory block {block.id} was {former} and came back as {' '.join(block.zones)}"
        )


def _faults_below(machine: Machine, held: Held, blocks: Mapping[int, Block]) -> Iterator[str]:
    mine = own_blocks(machine, held)
    wanted = BlockState.ONLINE if held.devices else BlockState.OFFLINE
    for number in held.blocks:
        block = blocks.get(number)
        if block is None or number not in mine:
            yield f"memory block {number} is not held any more"
        elif block.state is not wanted:
            yield f"memory block {number} is {block.state}, and should be {wanted}"
        elif wanted is BlockState.ONLINE and not is_low(block):
            yield f"memory block {number} is {' '.join(block.zones)}, which is no low memory"
    size = sum(blocks[each].size or 0 for each in held.blocks if each in blocks)
    if size < held.size:
        yield f"{size >> 20}MiB are held instead of {held.size >> 20}MiB"
    reached = (
        block.start + (block.size or 0) - 1 for block in map(blocks.get, held.blocks) if block
    )
    if any(end > held.mask for end in reached):
        yield "some of its blocks lie above the limit"


def _faults_above(machine: Machine, held: Held, blocks: Mapping[int, Block]) -> Iterator[str]:
    for number in held.above:
        block = blocks.get(number)
        if block is not None and block.zones[:1] != (MOVABLE,):
            zones = " ".join(block.zones)
            yield f"memory block {number} above the limit is {zones}, and should be movable"
