# SPDX-License-Identifier: Apache-2.0
"""Runs jobs in threads of their own: a few at once, the others in order, one for each zone.

The lock is never held while anything waits for the thread that changes the machine, so that this
thread may ask here which zones are busy.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned.engine.jobs.control import Cancelled, JobControl, Suspended
from zoned.errors import Bug, JobOver, NoSuchJob, Partial, TryLater, ZoneBusy, ZonedError
from zoned.idset import format_ids
from zoned.model.dma.held import reservation_of_owner
from zoned.model.job import Job, JobError, JobState, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zoned.engine.jobs.book import JobBook, Record
    from zoned.engine.jobs.control import Body, Change
    from zoned.model.job import JobKind, JobRequest

    Listener = Callable[[int], None]
    """Hears the id of a job that has changed, in whatever thread changed it."""

_log = logging.getLogger(__name__)

AT_ONCE = 4
"""Jobs that run at the same time. A paused one does not count."""

MOST_WAITING = 100
"""Jobs that are not over."""

STOP = 10.0
"""Seconds that the work under way gets to reach its next checkpoint when the daemon stops."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A job that is not over."""

    job: Job
    body: Body
    control: JobControl
    thread: threading.Thread | None = None
    cancelling: bool = False

    @property
    def shown(self) -> Job:
        rate = self.control.rate if self.job.state is JobState.RUNNING else None
        return replace(self.job, progress=self.control.progress, rate=rate)


class JobRunner:
    """All jobs of the daemon. Every method may be called by any thread, and none waits for a job
    but `stop`.
    """

    def __init__(
        self,
        book: JobBook,
        bodies: Mapping[JobKind, Callable[[JobRequest], Body]],
        change: Change,
    ) -> None:
        self._book = book
        self._bodies = bodies
        self._change = change
        self._lock = threading.Lock()
        self._entries: dict[int, _Entry] = {}
        self._listeners: tuple[Listener, ...] = ()
        self._news: dict[int, None] = {}
        self._stopping = False

    # What is shown

    def get(self, number: int) -> Job:
        """Return a job as it is now. Raises NoSuchJob."""
        entry = self._entries.get(number)
        job = self._shown(entry) if entry else self._book.get(number)
        if job is None:
            raise NoSuchJob(f"there is no job {number}", hint="zonectl jobs lists them")
        return job

    def list(self) -> tuple[Job, ...]:
        """Return all jobs that are known, oldest first."""
        shown = {number: self._shown(entry) for number, entry in self._entries.copy().items()}
        # The book second: what has ended meanwhile is over.
        jobs = {
            number: job if job.state.is_over else shown.get(number, job)
            for number, job in self._book.jobs.items()
        }
        return tuple(jobs[number] for number in sorted(jobs))

    def _shown(self, entry: _Entry) -> Job:
        """Return a job as it is now, with what it waits for where that is its turn."""
        job = entry.shown
        if job.state is not JobState.QUEUED:
            return job
        running = [each.id for each in self.active if each.state is JobState.RUNNING]
        if not running:
            return job
        phase = f"waiting for one of the jobs {format_ids(running)} to end"
        return replace(job, progress=replace(job.progress, phase=phase))

    @property
    def unfinished(self) -> tuple[int, ...]:
        """Return the ids of the jobs that run, wait or are paused."""
        return tuple(sorted(self._entries.copy()))

    @property
    def active(self) -> tuple[Job, ...]:
        """Return the jobs that run, wait or are paused."""
        return tuple(entry.job for entry in self._entries.copy().values())

    @property
    def busy_zones(self) -> Mapping[str, int]:
        """Return the zones that jobs hold, each with the job's id."""
        entries = self._entries.copy().values()
        return {zone: entry.job.id for entry in entries for zone in entry.job.request.zones}

    def refuse_busy(self, name: str) -> None:
        """Raise ZoneBusy if a job holds the zone. Not for the work of jobs themselves."""
        number = self.busy_zones.get(name)
        if number is not None:
            reservation = reservation_of_owner(name)
            whom = f"zone {name}" if reservation is None else f"reservation {reservation}"
            raise ZoneBusy(
                f"job {number} works on {whom} ({self.get(number).request.what})",
                hint=f"zonectl job {number} wait waits for it, zonectl job {number} cancel ends it",
            )

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have a function called at each change of a job; return what ends that.

        It is called with no lock held, and not much more than four times a second for each job.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return unsubscribe

    # What is asked for

    def start(self, request: JobRequest, uid: int, body: Body) -> Job:
        """Write a job down and start it, or have it wait for its turn.

        Raises ZoneBusy, TryLater, MachineError (it could not be written down); then there is none.
        """
        with self._changing():
            for zone in request.zones:
                self.refuse_busy(zone)
            if self._stopping:
                raise TryLater("the daemon stops", hint="ask again once it is back")
            if len(self._entries) >= MOST_WAITING:
                raise TryLater(f"{MOST_WAITING} jobs run and wait already", hint="see zonectl jobs")
            job = self._book.open(request, uid)
            self._add(job, body)
            self._fill()
        _log.info("job %d: %s", job.id, request.what)
        return self.get(job.id)

    def resume_all(self) -> None:
        """Take up what an earlier daemon of this boot left unfinished.

        A job that makes no sense any more is `interrupted`, with the reason as its error.
        """
        for record in self._book.resumable():
            try:
                body = self._body(record.job.request)
            except ZonedError as error:
                _log.warning("job %d cannot go on: %s", record.job.id, error)
                self._book.put(_over(record.job, JobState.INTERRUPTED, _job_error(error)))
            else:
                self._take_up(record, body)

    def pause(self, number: int) -> Job:
        """Have a job stop at its next checkpoint, or not begin. Raises NoSuchJob, JobOver."""
        with self._changing():
            entry = self._controllable(number)
            if entry.job.state is not JobState.PAUSED and not entry.cancelling:
                entry.control.pause()
                self._put(entry, JobState.PAUSED)
                self._fill()
        return self.get(number)

    def resume(self, number: int) -> Job:
        """Let a paused job go on, when its turn comes. Raises NoSuchJob, JobOver."""
        with self._changing():
            entry = self._controllable(number)
            if entry.job.state is JobState.PAUSED:
                self._put(entry, JobState.QUEUED)
                self._fill()
        return self.get(number)

    def cancel(self, number: int) -> Job:
        """Have a job end: at once if it never began, otherwise once it has tidied up.

        Raises NoSuchJob, JobOver.
        """
        with self._changing():
            entry = self._controllable(number)
            if entry.job.started is None:
                self._close(entry, JobState.CANCELLED, None)
            elif not entry.cancelling:
                self._cancel(entry)
        return self.get(number)

    def cancel_all(self) -> None:
        """Have every job end; does not wait for it."""
        for number in self.unfinished:
            try:
                self.cancel(number)
            except JobOver:
                continue

    def stop(self, seconds: float = STOP) -> None:
        """Have all work stop at its next checkpoint and wait for that. Jobs stay unfinished on
        disk.

        Work that does not get there in time is left to end with the process.
        """
        with self._lock:
            self._stopping = True
            entries = tuple(self._entries.values())
            for entry in entries:
                entry.control.suspend()
        deadline = time.monotonic() + seconds
        for entry in entries:
            if entry.thread is not None:
                entry.thread.join(max(0.0, deadline - time.monotonic()))
                if entry.thread.is_alive():
                    _log.warning("job %d did not stop in %g s", entry.job.id, seconds)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, and tell afterwards which jobs have changed."""
        with self._lock:
            yield
            news, self._news = self._news, {}
        for number in news:
            self._tell(number)

    # Under the lock

    def _add(self, job: Job, body: Body) -> _Entry:
        name = f"job {job.id} ({job.request.what})"
        control = JobControl(
            self._change, lambda: self._tell(job.id), name=name, progress=job.progress
        )
        entry = _Entry(job=job, body=body, control=control)
        self._entries[job.id] = entry
        self._news[job.id] = None
        return entry

    def _take_up(self, record: Record, body: Body) -> None:
        note = Progress(notes=("it went on after the daemon had been started anew",))
        # What had been done counts as done: what is left is counted from the beginning.
        progress = note if record.job.started is not None else Progress()
        paused = record.job.state is JobState.PAUSED
        state = JobState.PAUSED if paused else JobState.QUEUED
        with self._changing():
            entry = self._add(replace(record.job, state=state, progress=progress), body)
            if record.cancelling:
                self._cancel(entry)
            self._fill()
        _log.info("job %d goes on: %s", record.job.id, record.job.request.what)

    def _controllable(self, number: int) -> _Entry:
        entry = self._entries.get(number)
        if entry is None:
            state = self.get(number).state
            raise JobOver(f"job {number} is over: {state.value}", hint=f"see zonectl job {number}")
        return entry

    def _put(self, entry: _Entry, state: JobState) -> None:
        entry.job = replace(entry.job, state=state)
        self._news[entry.job.id] = None
        self._book.put(entry.shown, cancelling=entry.cancelling)

    def _cancel(self, entry: _Entry) -> None:
        """Let the work see it. It waits for no turn: it has only to tidy up."""
        entry.cancelling = True
        entry.control.cancel()
        self._go(entry)

    def _fill(self) -> None:
        """Let those whose turn it is run, oldest first."""
        entries = [self._entries[number] for number in sorted(self._entries)]
        free = AT_ONCE - sum(entry.job.state is JobState.RUNNING for entry in entries)
        waiting = [entry for entry in entries if entry.job.state is JobState.QUEUED]
        if not self._stopping:
            for entry in waiting[: max(0, free)]:
                self._go(entry)

    def _go(self, entry: _Entry) -> None:
        if entry.job.started is None:
            entry.job = replace(entry.job, started=time.time())
        self._put(entry, JobState.RUNNING)
        entry.control.resume()
        if entry.thread is None and not self._stopping:
            name = f"zoned-job-{entry.job.id}"
            # Work that hangs in the kernel must not keep the process from ending.
            entry.thread = threading.Thread(target=self._run, args=(entry,), name=name, daemon=True)
            entry.thread.start()

    def _close(self, entry: _Entry, state: JobState, error: JobError | None) -> None:
        # First on disk, then seen: nobody is told of an end that a restart could take back.
        self._book.put(_over(entry.shown, state, error))
        del self._entries[entry.job.id]
        self._news[entry.job.id] = None
        self._fill()

    # In a job's thread

    def _run(self, entry: _Entry) -> None:
        found = self._carry_out(entry)
        if found is None:
            return
        state, error = found
        with self._changing():
            self._close(entry, state, error)
        why = f" ([{error.code}] {error.message})" if error else ""
        _log.info("job %d: %s: %s%s", entry.job.id, entry.job.request.what, state.value, why)

    def _carry_out(self, entry: _Entry) -> tuple[JobState, JobError | None] | None:
        """Return how the work ended; None where it is to be taken up again."""
        try:
            entry.body(entry.control)
        except Cancelled:
            return JobState.CANCELLED, None
        except Suspended:
            return None
        except Partial as error:
            return JobState.PARTIAL, _job_error(error)
        except ZonedError as error:
            return JobState.FAILED, _job_error(error)
        except Exception as error:
            _log.exception("job %d failed in an unexpected way", entry.job.id)
            return JobState.FAILED, _job_error(_bug(error))
        left = entry.control.progress.left_behind
        return (JobState.PARTIAL if left else JobState.DONE), None

    # Without the lock

    def _body(self, request: JobRequest) -> Body:
        try:
            return self._bodies[request.kind](request)
        except (KeyError, TypeError, ValueError) as error:
            raise _bug(error) from error

    def _tell(self, number: int) -> None:
        for listener in self._listeners:
            listener(number)


def _over(job: Job, state: JobState, error: JobError | None) -> Job:
    return replace(job, state=state, ended=time.time(), rate=None, error=error)


def _job_error(error: ZonedError) -> JobError:
    return JobError(code=error.code, message=error.message, hint=error.hint)


def _bug(error: Exception) -> Bug:
    return Bug(f"{type(error).__name__}: {error}", hint="see the daemon's log, and report it")
