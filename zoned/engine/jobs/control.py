# SPDX-License-Identifier: Apache-2.0
"""What a job's work gets in hand: it tells how far it is, and hears when to stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

from zoned.model.job import Progress
from zoned.model.migration import Outcome

T = TypeVar("T")

_NOTIFY = 0.25
"""Seconds between two words to those who watch, unless it is a new phase."""

_WINDOW = 5.0
"""Seconds over which the rate is taken."""

_MOST_NOTES = 50


class Cancelled(Exception):
    """Somebody asked for the end of the job: tidy up, then let this one pass."""


class Suspended(Exception):
    """The daemon stops: leave all as it is, the job is taken up again at the next start."""


class Change(Protocol):
    """Runs work in the thread that may change the machine, and waits for it."""

    def __call__(self, work: Callable[[], T]) -> T: ...


class Rate:
    """Bytes a second over the last few seconds. For one thread at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._size = 0
        self._last = clock()
        self._samples = deque([(self._last, 0)])

    def restart(self) -> None:
        """Leave out the time up to now, in which nothing could move."""
        self._samples = deque([(self._clock(), self._size)])

    def add(self, size: int) -> None:
        """Count bytes that were moved."""
        self._size += size
        self._last = now = self._clock()
        if now - self._samples[-1][0] >= _NOTIFY:
            self._samples.append((now, self._size))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _WINDOW:
            self._samples.popleft()

    @property
    def value(self) -> float | None:
        """The rate; None where nothing moves."""
        now = self._clock()
        if now - self._last >= _WINDOW:
            return None
        # The youngest sample that is old enough: what came before it no longer counts.
        start, before = self._samples[0]
        for when, size in self._samples:
            if now - when >= _WINDOW:
                start, before = when, size
        moved = self._size - before
        return moved / (now - start) if moved > 0 and now > start else None


class JobControl:
    """One job, as its work sees it. Every method may be called by several threads at once."""

    def __init__(
        self,
        change: Change,
        changed: Callable[[], None],
        *,
        name: str = "a job",
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is what others call the job who wait for it."""
        self.name = name
        self._change = change
        self._changed = changed
        self._clock = clock
        self._wake = threading.Condition()
        self._paused = self._cancelled = self._suspended = False
        self._told = clock() - _NOTIFY
        progress = progress or Progress()
        self._phase = progress.phase
        self._total = progress.total
        self._outcomes = dict(progress.outcomes)
        self._processes, self._gone = progress.processes, progress.gone
        self._longest = progress.longest_call
        self._notes = list(progress.notes)
        self._foreign = progress.foreign
        self._rate = Rate(clock)

    # What the work calls

    def phase(self, text: str) -> None:
        """Tell what is being done now. Those who watch hear of it at once."""
        with self._wake:
            self._phase = text
            if Outcome.MOVED not in self._outcomes:
                self._rate.restart()
        self._tell(always=True)

    def checkpoint(self) -> None:
        """Return at once while the job is to go on, block while it is paused.

        To be called between pieces of work that are short. Raises Cancelled, Suspended.
        """
        with self._wake:
            self._wake.wait_for(lambda: not self._paused or self.ends)
            self._raise_if_ending()

    @property
    def is_paused(self) -> bool:
        """Whether the job stops, or is to stop, at its next checkpoint until it is resumed."""
        return self._paused and not self.ends

    @property
    def ends(self) -> bool:
        """Whether the next checkpoint will raise. For work that cannot be cut off by raising."""
        return self._cancelled or self._suspended

    def wait(self, seconds: float) -> None:
        """Sleep; pausing, cancelling and stopping wake it, and are then seen to as in checkpoint.

        Raises Cancelled, Suspended.
        """
        with self._wake:
            self._wake.wait_for(lambda: self._paused or self.ends, seconds)
        self.checkpoint()

    def expect(self, size: int) -> None:
        """Tell how many bytes there are to be moved in all, as far as that is known by now."""
        with self._wake:
            self._total = int(size)
        self._tell()

    def count(self, outcome: Outcome, size: int) -> None:
        """Add bytes to an outcome; a negative size takes back what was counted too early."""
        size = int(size)  # A number of numpy's could not be written down later.
        with self._wake:
            self._outcomes[outcome] = self._outcomes.get(outcome, 0) + size
            if outcome is Outcome.MOVED:
                self._rate.add(size)
        self._tell()

    def called(self, seconds: float) -> None:
        """Tell how long one call of the kernel took; the longest is kept."""
        with self._wake:
            self._longest = max(self._longest, seconds)

    def processes(self, done: int, gone: int) -> None:
        """Add processes that are done with, and such as ended meanwhile."""
        with self._wake:
            self._processes += done
            self._gone += gone
        self._tell()

    def note(self, text: str) -> None:
        """Add a sentence for whoever asked for the job. The same one is not said twice."""
        with self._wake:
            if text not in self._notes and len(self._notes) < _MOST_NOTES:
                self._notes.append(text)
        self._tell()

    def foreign(self, size: int | None) -> None:
        """Tell how many bytes the zone's members use that are charged elsewhere."""
        with self._wake:
            self._foreign = size
        self._tell()

    def change(self, work: Callable[[], T]) -> T:
        """Run work in the one thread that may change the machine; return or raise what it does.

        Raises Suspended where the daemon ends before the work's turn came.
        """
        return self._change(work)

    @property
    def progress(self) -> Progress:
        """How far the job is at this moment."""
        with self._wake:
            return Progress(
                phase=self._phase,
                total=self._total,
                outcomes={what: size for what, size in self._outcomes.items() if size},
                processes=self._processes,
                gone=self._gone,
                longest_call=self._longest,
                notes=tuple(self._notes),
                foreign=self._foreign,
            )

    @property
    def rate(self) -> float | None:
        """Bytes moved a second, lately; None where nothing moves."""
        with self._wake:
            return self._rate.value

    # What the runner calls

    def pause(self) -> None:
        """Have the work block at its next checkpoint."""
        with self._wake:
            self._paused = True
            self._wake.notify_all()

    def resume(self) -> None:
        """Let the work go on."""
        with self._wake:
            self._paused = False
            self._rate.restart()
            self._wake.notify_all()

    def cancel(self) -> None:
        """Have the next checkpoint raise Cancelled, paused or not."""
        with self._wake:
            self._cancelled = True
            self._wake.notify_all()

    def suspend(self) -> None:
        """Have the next checkpoint raise Suspended, unless the job is being cancelled."""
        with self._wake:
            self._suspended = True
            self._wake.notify_all()

    def _raise_if_ending(self) -> None:
        if self._cancelled:
            raise Cancelled
        if self._suspended:
            raise Suspended

    def _tell(self, *, always: bool = False) -> None:
        with self._wake:
            now = self._clock()
            if not always and now - self._told < _NOTIFY:
                return
            self._told = now
        self._changed()


Body: TypeAlias = Callable[[JobControl], None]
"""What a job does. Returning means done; it may raise ZonedError, Cancelled and Suspended."""
