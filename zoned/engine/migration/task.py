# SPDX-License-Identifier: Apache-2.0
"""A whole move: look, move, look again, until nothing is left that can move.

The second look is the truth: it finds what was mapped, forked or executed meanwhile, and what the
kernel said of pages but did not do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned.engine.migration.look import Eyes, has
from zoned.engine.migration.mover import Mover
from zoned.engine.migration.preview import preview
from zoned.engine.migration.sight import Sight
from zoned.errors import NoRoom
from zoned.kernel.page_flags import KPF_HUGE, KPF_LOCKED, KPF_LRU, KPF_WRITEBACK
from zoned.kernel.pidfd import Watch
from zoned.model.migration import Outcome
from zoned.units import format_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.migration.look import Folios
    from zoned.engine.migration.plan import Move
    from zoned.engine.migration.sight import Seen
    from zoned.kernel.process import Process
    from zoned.model.migration import Survey

_BACK_OFF = (0.02, 0.1, 0.5, 2.0)
"""Seconds to wait before pages that were refused are tried again."""
_MOST_PASSES = 12
"""A program that takes new memory on the wrong nodes all the time is not followed for ever."""

_FIXED = "of memory that is reserved for devices stay where they are"
_TAKES_MORE = (
    "the processes take new memory on the nodes they are to leave: confine them to others (attach"
    " them to a zone) to end that"
)


def survey(machine: Machine, move: Move) -> Survey:
    """Return what a move would do. Raises Unsupported, and what the move's check raises."""
    with Eyes(machine.root) as eyes:
        return preview(eyes, move)


def move_pages(machine: Machine, control: JobControl, move: Move) -> None:
    """Move the pages of a scope's processes. What is left behind is in the job's outcomes.

    Raises Cancelled and Suspended with the account complete up to then; KernelRefused,
    Unsupported, and what the move's check raises.
    """
    with Eyes(machine.root) as eyes, Watch(machine.root) as watch:
        _Task(machine, control, move, eyes, watch).run()


class _Task:
    def __init__(
        self, machine: Machine, control: JobControl, move: Move, eyes: Eyes, watch: Watch
    ) -> None:
        self._watch = watch
        self._control = control
        self._move = move
        self._eyes = eyes
        self._mover = Mover(move, control, machine.costs, watch.alive)
        self._expected: dict[int, int] = {}
        """pid -> bytes that it had to move, as far as they were seen"""
        self._most = 0
        """bytes there were to move, before processes ended"""
        self._processes: dict[int, Process] = {}
        self._earlier = control.progress.outcomes
        """of a run before the daemon was started again"""
        self._before = sum(self._earlier.get(each, 0) for each in (Outcome.MOVED, Outcome.ABSENT))

    def run(self) -> None:
        self._control.phase("looking")
        sight = self._look()
        self._check_room(sight)
        self._control.count(Outcome.THERE, sight.there)
        if sight.fixed:
            self._control.note(f"{format_size(sight.fixed)} {_FIXED}")
        sight = self._passes(sight)
        self._close(sight)

    def _check_room(self, sight: Sight) -> None:
        """Refuse the move where it does not fit; what may stay counts only if it is close."""
        if self._move.check is None or not sight.misplaced:
            return
        try:
            self._move.check(sight.misplaced, 0)
        except NoRoom:
            found = preview(self._eyes, self._move)
            self._move.check(found.to_move, found.huge)

    def _passes(self, sight: Sight) -> Sight:
        """Move and look until nothing is left that can move; return the last look."""
        fruitless = 0
        for number in range(1, _MOST_PASSES + 1):
            if not sight.misplaced:
                return sight
            self._control.phase("moving" if number == 1 else f"moving the rest, pass {number}")
            moved = self._mover.move(sight)
            # What others map too was asked of those that ended.
            ended = any(not self._watch.alive(seen.process) for seen in sight.seen)
            if not moved and not self._mover.refused and not ended:
                return sight  # nothing of it may move
            sight = self._look()
            if moved or ended:
                fruitless = 0
            elif fruitless >= self._patience():
                return sight
            else:
                self._control.phase("waiting for pages that are in use")
                self._control.wait(_BACK_OFF[fruitless])
                fruitless += 1
        if sight.misplaced:
            self._control.note(_TAKES_MORE)
        return sight

    def _patience(self) -> int:
        """How often pages that did not move are tried again: a full node stays full."""
        reasons = set(self._mover.refused.values())
        return len(_BACK_OFF) if Outcome.BUSY in reasons else 1

    def _look(self) -> Sight:
        self._control.checkpoint()
        processes = self._move.scope.processes()
        sight = Sight(self._eyes, self._move).take(processes)
        for seen in sight.seen:
            pid = seen.process.pid
            self._processes.setdefault(pid, seen.process)
            have = self._mover.dealt.get(pid, 0)
            self._expected[pid] = max(self._expected.get(pid, 0), have + seen.size)
        total = self._before + sum(self._mover.dealt.values()) + sight.misplaced
        self._control.expect(total)
        self._most = max(self._most, total)
        return sight

    def _close(self, sight: Sight) -> None:
        """Account for what is left behind, and for processes that ended."""
        gone = [each for each in self._processes.values() if not self._watch.alive(each)]
        left = 0
        for seen, folios, may in sight.left():
            if seen.process in gone:
                continue
            for outcome, size in self._reasons(seen, folios, may):
                self._control.count(outcome, size)
                left += size
        self._control.expect(self._before + sum(self._mover.dealt.values()) + left)
        for process in gone:
            self._control.count(Outcome.GONE, self._lost_with(process))
        self._control.processes(len(self._processes) - len(gone), len(gone))

    def _lost_with(self, process: Process) -> int:
        """Return the bytes that nothing else became of: others may have had them too."""
        now = self._control.progress
        told = sum(size for what, size in now.outcomes.items() if what is not Outcome.THERE)
        lost = self._expected[process.pid] - self._mover.dealt.get(process.pid, 0)
        return max(0, min(lost, self._most - told))

    def _reasons(
        self, seen: Seen, folios: Folios, may: NDArray[np.bool_]
    ) -> list[tuple[Outcome, int]]:
        found: dict[Outcome, int] = {Outcome.SHARED: int(folios.sizes[~may].sum())}
        held = self._held(folios)
        refused = self._mover.refused
        for index in np.flatnonzero(may).tolist():
            key = (seen.process.pid, int(folios.addresses[index]))
            if key in self._mover.absent and key not in refused:
                continue  # It is counted already.
            reason = refused.get(key, Outcome.BUSY)
            if reason is Outcome.BUSY and key in refused and held[index]:
                reason = Outcome.PINNED
            found[reason] = found.get(reason, 0) + int(folios.sizes[index])
        return [(outcome, size) for outcome, size in found.items() if size]

    def _held(self, folios: Folios) -> NDArray[np.bool_]:
        """Tell which are held by somebody: the kernel could take them off its lists, yet no move.

        Nobody writes or reads them in, and nobody has them locked, so only a reference is left as
        the reason (Documentation/core-api/pin_user_pages.rst).
        """
        now = self._eyes.flags.flags(folios.pfns)
        idle = has(now, KPF_LRU) & ~has(now, KPF_LOCKED | KPF_WRITEBACK)
        return idle | has(now, KPF_HUGE)
