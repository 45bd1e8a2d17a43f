# SPDX-License-Identifier: Apache-2.0
"""Looks after memory blocks between requests: after a crash, a reboot, or a change of the policy.

What is quick is done at once. What moves memory becomes a job; what did not succeed is tried again
after a while, because each attempt disturbs the machine.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoned.engine.blocks.back import give_back
from zoned.engine.blocks.hands import Direct
from zoned.engine.blocks.needs import home_of, is_for_device, returning
from zoned.engine.blocks.observe import needs_of
from zoned.engine.blocks.strays import tidy_strays
from zoned.errors import TryLater, ZonedError
from zoned.idset import format_ids
from zoned.kernel.block_state import BlockSwitch, deadline_of
from zoned.kernel.memory_block import block_size, read_block
from zoned.model.alert import Alert, AlertCode
from zoned.model.block import BASE, CHANGING, MOVABLE, PARKED, BlockWord, zone_of_owner
from zoned.model.job import JobKind
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zoned.engine.machine import Machine
    from zoned.model.block import HeldBlock
    from zoned.model.topology import Block

_log = logging.getLogger(__name__)

AGAIN = 600.0
"""Seconds after which what did not succeed is tried again."""


class BlockKeeper:
    """Brings the blocks in the ledger to where they belong. For the thread that changes things."""

    def __init__(
        self,
        machine: Machine,
        start: Callable[[JobKind, Mapping[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what starts a job."""
        self._machine = machine
        self._start = start
        self._clock = clock
        self._tried: dict[str, float] = {}

    def settle(self) -> None:
        """Do what is quick: bring back what was left offline, strike off what was never taken."""
        if not self._machine.ledger.touched.blocks:
            return
        with self._machine.turn.now(), BlockSwitch(self._machine.root) as switch:
            for each in list(self._machine.ledger.touched.blocks.values()):
                try:
                    self._settle(each, switch)
                except ZonedError as error:
                    _log.warning("block %d: [%s] %s", each.number, error.code, error)

    def mend(self) -> None:
        """Start jobs for what takes longer, one for each matter."""
        needs = needs_of(self._machine)
        for zone in needs.short:
            self._try(f"zone {zone}", JobKind.FILL, {"name": zone})
        size = block_size(self._machine.root) or 0
        for node, count in needs.parked.items():
            parameters = {"node": node, "size": count * size, "keep": True}
            self._try(f"node {node}", JobKind.PARK, parameters)
        if needs.back:
            self._try("back", JobKind.GIVE_BACK, {})

    def again(self) -> None:
        """Have the next `mend` try everything: the machine or the policy has changed."""
        self._tried.clear()

    def give_all_back(self) -> list[str]:
        """Bring every block back, parked ones too; return what could not be, with the reason.

        Those of reservations that are still there stay: memory that devices use may lie in them.
        """
        touched = self._machine.ledger.touched
        held = [
            replace(each, home=BASE)
            for each in touched.blocks.values()
            if not is_for_device(each, touched.reservations)
        ]
        # What only a policy wants comes back with the next reload.
        self._machine.policy = replace(self._machine.policy, parked={})
        if not held:
            return []
        with self._machine.turn.now(), BlockSwitch(self._machine.root) as switch:
            left = give_back(self._machine, Direct(), held, switch)
            tidy_strays(self._machine, Direct())
        return [f"memory block {each.number}: it is not as it was found" for each in left]

    def alerts(self) -> Iterator[Alert]:
        """Yield what is missing, and what is owed."""
        needs = needs_of(self._machine)
        for zone, lacking in needs.short.items():
            listed = ", ".join(f"{count} on node {node}" for node, count in lacking.items())
            yield Alert(
                code=AlertCode.BLOCKS_MISSING, subject=zone, message=f"it lacks blocks: {listed}"
            )
        for node, count in needs.parked.items():
            yield Alert(
                code=AlertCode.BLOCKS_MISSING,
                subject=f"node {node}",
                message=f"{count} blocks fewer are parked than the policy wants",
            )
        if needs.back:
            numbers = format_ids(each.number for each in needs.back)
            yield Alert(
                code=AlertCode.BLOCKS_OWED,
                subject=f"blocks {numbers}",
                message="nobody wants them any more, and they are not as they were found",
            )

    def _try(self, matter: str, kind: JobKind, parameters: Mapping[str, Any]) -> None:
        now = self._clock()
        if matter in self._tried and now - self._tried[matter] < AGAIN:
            return
        self._tried[matter] = now
        try:
            self._start(kind, parameters)
        except TryLater:
            del self._tried[matter]
        except ZonedError as error:
            _log.warning("%s: [%s] %s", matter, error.code, error)

    def _settle(self, each: HeldBlock, switch: BlockSwitch) -> None:
        machine = self._machine
        if is_for_device(each, machine.ledger.touched.reservations):
            return
        block = read_block(machine.root, each.number)
        if block is None:
            machine.ledger.blocks_returned([each.number])
        elif block.state is BlockState.OFFLINE:
            self._settle_offline(each, block, switch)
        elif block.state is BlockState.ONLINE:
            self._settle_online(each, movable=block.zones[:1] == (MOVABLE,))

    def _settle_offline(self, each: HeldBlock, block: Block, switch: BlockSwitch) -> None:
        machine = self._machine
        if zone_of_owner(each.owner) in machine.store.zones:
            machine.ledger.blocks_taken([replace(each, emptied=True)])
            deadline = deadline_of(block.size or 0)
            switch.switch(each.number, BlockWord.MOVABLE, deadline=deadline)
        elif each.owner != PARKED:
            give_back(machine, Direct(), [each], switch)

    def _settle_online(self, each: HeldBlock, *, movable: bool) -> None:
        ledger = self._machine.ledger
        if _is_over(each, movable=movable):
            ledger.blocks_returned([each.number])
        elif each.owner == PARKED:
            _log.warning("parked block %d was brought online by somebody else", each.number)
            ledger.blocks_taken([returning(each)])
        elif zone_of_owner(each.owner) is not None and not each.emptied:
            # Never taken, and movable before: what others have in it is still there.
            ledger.blocks_taken([returning(each)])


def _is_over(each: HeldBlock, *, movable: bool) -> bool:
    """Return whether nothing is left to do for a block that is online.

    It was never taken; or somebody brought it back as what it was; or it was to become movable, and
    has, so that only the last stroke is missing.
    """
    if not movable or (each.owner == CHANGING and each.emptied):
        return True
    wanted = each.owner == PARKED or zone_of_owner(each.owner) is not None
    return each.former == MOVABLE and home_of(each) == BASE and not wanted
