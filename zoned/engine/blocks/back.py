# SPDX-License-Identifier: Apache-2.0
"""Giving memory blocks back: to the parked pool, or to the base zone as they were found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.blocks.needs import home_of, returning
from zoned.errors import BlockBusy, BlockRefused, BlockTimeout, MachineError, NotAsWritten
from zoned.kernel.block_state import deadline_of
from zoned.kernel.memory_block import read_block
from zoned.model.block import BASE, MOVABLE, PARKED, BlockWord
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.kernel.block_state import BlockSwitch
    from zoned.model.block import HeldBlock
    from zoned.model.topology import Block

_REFUSALS = (BlockBusy, BlockRefused, BlockTimeout, NotAsWritten)


def give_back(
    machine: Machine, hands: Hands, held: Sequence[HeldBlock], switch: BlockSwitch
) -> list[HeldBlock]:
    """Bring blocks to where they belong, and strike them off the ledger.

    Return those that could not be: they stay online, usable by everybody, and on record. Raises
    MachineError where the machine cannot be read or the ledger not be written.
    """
    ledger = machine.ledger
    hands.change(lambda: ledger.blocks_taken([returning(each) for each in held]))
    left = []
    for place, each in enumerate(held):
        hands.phase(f"giving back block {each.number} ({place + 1} of {len(held)})")
        try:
            _give_back(machine, hands, each, switch)
        except _REFUSALS as error:
            hands.note(f"block {each.number} is not as it was: {error.message}")
            left.append(each)
    return left


def _give_back(machine: Machine, hands: Hands, each: HeldBlock, switch: BlockSwitch) -> None:
    ledger = machine.ledger
    block = read_block(machine.root, each.number)
    if block is None:
        hands.change(lambda: ledger.blocks_returned([each.number]))
        return
    if home_of(each) == PARKED:
        _offline(block, hands, switch)
        parked = replace(each, owner=PARKED, home=BASE)
        hands.change(lambda: ledger.blocks_taken([parked]))
        return
    each = _meant(machine, each, block)
    if not _is_as_found(block, each.former):
        _offline(block, hands, switch)
        _online(machine, hands, each, switch)
    hands.change(lambda: ledger.blocks_returned([each.number]))


def _meant(machine: Machine, each: HeldBlock, block: Block) -> HeldBlock:
    """Return the entry of a block as its base zone wants it, which may no longer be as found."""
    if each.former is not None and block.node in machine.ledger.touched.movable_only:
        return replace(each, former=MOVABLE)
    return each


def _is_as_found(block: Block, former: str | None) -> bool:
    if former is None:
        return block.state is BlockState.OFFLINE
    return block.state is BlockState.ONLINE and block.zones[:1] == (former,)


def _offline(block: Block, hands: Hands, switch: BlockSwitch) -> None:
    switch.switch(
        block.id,
        BlockWord.OFFLINE,
        deadline=deadline_of(block.size or 0),
        give_up=lambda: hands.ends,
    )


def _online(machine: Machine, hands: Hands, each: HeldBlock, switch: BlockSwitch) -> None:
    """Bring an offline block online as it was found, or at least online."""
    if each.former is None:
        return
    block = read_block(machine.root, each.number)
    if block is not None and block.zones and each.former not in block.zones:
        hands.note(
            f"block {each.number} was {each.former} and can only come back as"
            f" {' or '.join(block.zones)} now"
        )
    word = BlockWord.MOVABLE if each.former == MOVABLE else BlockWord.KERNEL
    deadline = deadline_of(block.size or 0 if block else 0)
    try:
        switch.switch(each.number, word, deadline=deadline)
    except MachineError as error:
        # Rather the wrong kind of memory than none.
        hands.note(f"{error.message}; it comes online as the kernel likes")
        switch.switch(each.number, BlockWord.ONLINE, deadline=deadline)
