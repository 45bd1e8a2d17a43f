# SPDX-License-Identifier: Apache-2.0
"""Memory that is plugged in while nobody asks: who brings it online, and who was first.

With `hotplug: {online: zoned}` in the policy the kernel is told to leave new blocks offline, and
each node with new ones gets a job that brings them online. What was there before is never touched:
somebody may have taken it offline on purpose.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoned.engine.base.movable import forget_gone, meant_movable
from zoned.engine.base.plan import too_much_kernel
from zoned.errors import TryLater, ZonedError
from zoned.idset import format_ids
from zoned.kernel.auto_online import read_auto_online, write_auto_online
from zoned.kernel.base_zones import read_base_zones
from zoned.kernel.memory_block import read_blocks
from zoned.model.alert import Alert, AlertCode
from zoned.model.base import Hotplug
from zoned.model.block import BlockWord
from zoned.model.job import JobKind
from zoned.model.policy import OnlineBy
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from zoned.engine.machine import Machine
    from zoned.model.base import BaseZone
    from zoned.model.topology import Block

_log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds that the kernel gets between telling of a block and telling its node."""
_PAUSE = 0.02

_BY_KERNEL = "the kernel itself (auto_online_blocks said {word})"
_BY_OTHERS = "a udev rule or another program"


class HotplugKeeper:
    """Looks after memory that is plugged in. For the thread that changes the machine."""

    def __init__(
        self, machine: Machine, start: Callable[[JobKind, Mapping[str, Any]], None]
    ) -> None:
        """Take what starts a job."""
        self._machine = machine
        self._start = start

    def claim(self) -> None:
        """Have the kernel leave new blocks offline if the policy wants that, else not any more."""
        try:
            claim(self._machine)
        except ZonedError as error:
            _log.warning("memory that is plugged in: [%s] %s", error.code, error)

    def look(self) -> None:
        """Look at memory that has come or gone, and start a job for each node with new blocks."""
        try:
            forget_gone(self._machine)
            if claim(self._machine):
                for node, blocks in find_new(self._machine).items():
                    self._add(node, blocks)
        except ZonedError as error:
            _log.warning("memory that is plugged in: [%s] %s", error.code, error)

    def give_back(self) -> list[str]:
        """Leave new memory to the kernel as it was found; return what did not succeed, and why."""
        machine = self._machine
        # What only a policy wants comes back with the next reload.
        machine.policy = replace(machine.policy, online=OnlineBy.KERNEL)
        try:
            _leave_to_kernel(machine)
        except ZonedError as error:
            return [f"auto_online_blocks: {error}"]
        return []

    def _add(self, node: int, blocks: frozenset[int]) -> None:
        ledger = self._machine.ledger
        try:
            self._start(JobKind.BASE_ADD, {"base": str(node), "blocks": format_ids(blocks)})
        except TryLater:
            return  # with the next look
        found = ledger.touched.hotplug
        if found is not None:
            ledger.hotplug_is(replace(found, known=found.known | blocks))


def claim(machine: Machine) -> bool:
    """Have `auto_online_blocks` say what the policy wants; return whether new memory is ours.

    Raises MachineError.
    """
    if machine.policy.online is OnlineBy.KERNEL:
        _leave_to_kernel(machine)
        return False
    word = read_auto_online(machine.root)
    if word is None:
        return False
    found = machine.ledger.touched.hotplug
    if found is None:
        found = Hotplug(former=word, known=_fixed(machine))
    if word is not BlockWord.OFFLINE:
        machine.ledger.hotplug_is(replace(found, said=word))
        write_auto_online(machine.root, BlockWord.OFFLINE)
    else:
        machine.ledger.hotplug_is(found)
    return True


def find_races(machine: Machine) -> Iterator[Alert]:
    """Yield base zones that somebody else brought online first, and as what they should not be."""
    found = machine.ledger.touched.hotplug
    if found is None or not found.raced:
        return
    for zone in read_base_zones(machine.root):
        wrong = found.raced & {block.id for block in _surplus(machine, zone)}
        if wrong:
            yield Alert(
                code=AlertCode.ONLINE_RACE,
                subject=f"node {zone.node}",
                message=f"memory blocks {format_ids(wrong)} were brought online as memory of the"
                f" kernel's own by {found.by}, before zoned could",
            )


def note_race(machine: Machine, block: int) -> None:
    """Take note that somebody else made a new block the kernel's own while zoned brought it online.

    For the thread that changes the machine. Nothing is noted where new memory is not zoned's.
    """
    found = machine.ledger.touched.hotplug
    if found is not None:
        raced = found.raced | {block}
        machine.ledger.hotplug_is(replace(found, raced=raced, by=_BY_OTHERS))


@contextlib.contextmanager
def lent_auto_online(machine: Machine) -> Iterator[None]:
    """Have new blocks stay offline meanwhile, whatever the policy says."""
    word = read_auto_online(machine.root)
    if word is None or word is BlockWord.OFFLINE:
        yield
        return
    ledger = machine.ledger
    if ledger.touched.hotplug is None:
        ledger.hotplug_is(Hotplug(former=word))
    write_auto_online(machine.root, BlockWord.OFFLINE)
    try:
        yield
    finally:
        if machine.policy.online is OnlineBy.KERNEL:
            _leave_to_kernel(machine)


def _leave_to_kernel(machine: Machine) -> None:
    """Put back what new blocks do by themselves, if that was changed."""
    found = machine.ledger.touched.hotplug
    if found is None:
        return
    if found.former is not None and read_auto_online(machine.root) is not found.former:
        write_auto_online(machine.root, found.former)
    machine.ledger.hotplug_is(None)


def _fixed(machine: Machine) -> frozenset[int]:
    """Return the blocks that are there before zoned looks for new ones.

    What was plugged in earlier and made more than the kernel's part counts as new, so that it is
    judged. That part itself is right, whatever the policy wants of memory that comes from now on.
    """
    held, ratio = machine.ledger.touched.blocks, machine.policy.movable_ratio
    zones = read_base_zones(machine.root)
    judged = {block.id for zone in zones for block in too_much_kernel(zone, held, ratio)}
    return frozenset(block.id for zone in zones for block in zone.blocks) - judged


def find_new(machine: Machine) -> dict[int, frozenset[int]]:
    """Return node -> new blocks that are offline; who was first with the others is written down.

    Raises MachineError.
    """
    former = machine.ledger.touched.hotplug or Hotplug(former=None)
    blocks = _settled(machine, former.known)
    new = [block for block in blocks if block.id not in former.known]
    present = frozenset(block.id for block in blocks)
    offline: dict[int, frozenset[int]] = {}
    for block in new:
        if block.state is BlockState.OFFLINE and block.node is not None:
            offline[block.node] = offline.get(block.node, frozenset()) | {block.id}
    wrong = _first_by_others(machine, new)
    machine.ledger.hotplug_is(
        replace(
            former,
            said=BlockWord.OFFLINE,
            known=present - frozenset[int]().union(*offline.values()),
            raced=(former.raced & present) | wrong,
            by=_by(former.said) if wrong else former.by,
        )
    )
    return offline


def _settled(machine: Machine, known: Iterable[int]) -> tuple[Block, ...]:
    """Return all blocks once each of the new ones has its node: the kernel tells that last."""
    known = frozenset(known)
    deadline = time.monotonic() + _PATIENCE
    while True:
        blocks = read_blocks(machine.root)
        waiting = any(block.node is None for block in blocks if block.id not in known)
        if not waiting or time.monotonic() >= deadline:
            return blocks
        time.sleep(_PAUSE)


def _first_by_others(machine: Machine, new: Iterable[Block]) -> frozenset[int]:
    online = {block.id for block in new if block.state is BlockState.ONLINE}
    if not online:
        return frozenset()
    zones = read_base_zones(machine.root)
    surplus = {block.id for zone in zones for block in _surplus(machine, zone)}
    return frozenset(online & surplus)


def _by(word: BlockWord) -> str:
    return _BY_OTHERS if word is BlockWord.OFFLINE else _BY_KERNEL.format(word=word)


def _surplus(machine: Machine, zone: BaseZone) -> tuple[Block, ...]:
    held = machine.ledger.touched.blocks
    movable = meant_movable(machine, zone)
    return too_much_kernel(zone, held, machine.policy.movable_ratio, movable)
