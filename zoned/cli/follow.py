# SPDX-License-Identifier: Apache-2.0
"""Starting a job and following it to its end, over Ctrl-C and restarts of the daemon.

A thread listens to the daemon, and the main thread waits for what it hears: so a signal is dealt
with at once, and never in the midst of a message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
import time
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from zoned.api.types import JobInfo
from zoned.cli.output import Format, emit
from zoned.cli.progress import display_for, is_over
from zoned.cli.report import left_behind, result
from zoned.cli.talk import call
from zoned.errors import (
    Bug,
    JobCancelled,
    JobInterrupted,
    JobOver,
    NoDaemon,
    Partial,
    ZonedError,
    revive,
)
from zoned.model.job import JobState

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from zoned.cli.progress import Display
    from zoned.cli.talk import Session

PATIENCE = 30.0
"""Seconds that the daemon may be away: long enough for a restart or an upgrade."""
PAUSE = 0.2
"""Seconds between two attempts to reach it."""
LAST_WORD = 2.0
"""Seconds that a command which is told to leave at once takes to see its cancellation heard."""
BLINK = 0.2
"""Seconds after which a Ctrl-C is noticed at the latest."""

_INTERRUPTED = 130


class _Event(Enum):
    CTRL_C = auto()
    DEAF = auto()
    """the thread that listens has ended"""


_News: TypeAlias = "JobInfo | ZonedError | str | _Event"


class Interrupts:
    """Turns the first Ctrl-C into an event; the second ends the command as usual."""

    def __init__(self) -> None:
        self.events: SimpleQueue[_News] = SimpleQueue()
        self.count = 0
        self._former: Any = None

    def __enter__(self) -> Interrupts:
        # Where a shell had it ignored, it is not for this command.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._former = signal.signal(signal.SIGINT, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def _caught(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self.events.put(_Event.CTRL_C)


def run_job(
    session: Session,
    method: str,
    *,
    output: Format,
    no_wait: bool,
    doing: str,
    **parameters: Any,
) -> None:
    """Start a job by calling a method of the daemon, follow it, and tell how it ended.

    Ctrl-C cancels it. Raises what `conclude` raises, and what the daemon refuses with.
    """
    if no_wait:
        job = call(session, method, JobInfo, doing=doing, **parameters)
        if output is Format.TABLE:
            click.echo(job.id)
        else:
            emit(output, dataclasses.asdict(job))
        return
    with Interrupts() as interrupts:
        job = call(session, method, JobInfo, doing=doing, **parameters)
        last = follow(session, job, output, interrupts)
    conclude(last, output, interrupted=interrupts.count > 0)


def follow(
    session: Session, job: JobInfo, output: Format, interrupts: Interrupts | None = None
) -> JobInfo:
    """Show the job until it is over, and return its last state.

    Within `interrupts` the first Ctrl-C cancels the job. Any other ends the following alone, and
    the process. Raises NoDaemon where the daemon was away for longer than PATIENCE.
    """
    events = interrupts.events if interrupts else SimpleQueue()
    cancelling = _Cancelling(session, job.id, events.put)
    display = display_for(output)
    try:
        with display:
            display.show(job)
            if not is_over(job):
                _thread(_listen, session, job.id, events.put)
                job = _until_over(job, display, events, cancelling)
    except KeyboardInterrupt:
        # The first Ctrl-C may not even have been looked at.
        heard = interrupts is not None and cancelling.begin().heard.wait(LAST_WORD)
        fate = "is being cancelled" if heard else "goes on" if interrupts is None else "may go on"
        click.echo(f"zonectl: job {job.id} {fate}; zonectl job {job.id} shows it", err=True)
        sys.exit(_INTERRUPTED)
    return job


def _until_over(
    job: JobInfo, display: Display, events: SimpleQueue[_News], cancelling: _Cancelling
) -> JobInfo:
    while not is_over(job):
        match _next(events):
            case JobInfo() as job:
                display.show(job)
            case str() as text:
                display.say(text)
            case ZonedError() as error:
                raise error
            case _Event.CTRL_C:
                display.say(
                    f"cancelling job {job.id}, what was moved stays; Ctrl-C again leaves at once"
                )
                cancelling.begin()
            case _Event.DEAF:
                raise Bug(f"job {job.id} can no longer be followed", hint=_look(job.id))
    return job


def _next(events: SimpleQueue[_News]) -> _News:
    # A signal just before the waiting begins does not end it, and its handler runs only after it.
    while True:
        with contextlib.suppress(Empty):
            return events.get(timeout=BLINK)


def _thread(target: Callable[..., None], *arguments: Any) -> None:
    # Nothing waits for it at the end: by then what it would still do matters to nobody.
    threading.Thread(target=target, args=arguments, daemon=True).start()


class _Patience:
    """Counts for how long the daemon has been away."""

    def __init__(self) -> None:
        self._since: float | None = None

    @property
    def is_tried(self) -> bool:
        return self._since is not None

    def restore(self) -> None:
        self._since = None

    def last(self) -> bool:
        """Wait a little; return False when that was done for long enough."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= PATIENCE:
            return False
        time.sleep(PAUSE)
        return True


def _listen(session: Session, number: int, tell: Callable[[_News], None]) -> None:
    """Tell of each state of the job up to the last; connect again where that breaks off."""
    patience = _Patience()
    try:
        while not _heard_all(session, number, tell, patience):
            if not patience.is_tried:
                tell("the daemon has gone, trying to reach it again")
            if not patience.last():
                raise NoDaemon(
                    f"the daemon did not come back within {PATIENCE:.0f} s", hint=_look(number)
                )
    except ZonedError as error:
        tell(error)
    finally:
        tell(_Event.DEAF)


def _heard_all(
    session: Session, number: int, tell: Callable[[_News], None], patience: _Patience
) -> bool:
    from zoned.api.client import Client

    try:
        with Client(session.socket) as client:
            for job in client.stream("Jobs.Watch", JobInfo, id=number):
                if patience.is_tried:
                    tell("the daemon is back")
                patience.restore()
                tell(job)
                if is_over(job):
                    return True
    except NoDaemon:
        pass
    return False


class _Cancelling:
    """Asks the daemon to cancel the job, also a daemon that is just being restarted."""

    def __init__(self, session: Session, number: int, tell: Callable[[_News], None]) -> None:
        self.heard = threading.Event()
        """set once the daemon has answered"""
        self._session, self._number, self._tell = session, number, tell
        self._begun = False

    def begin(self) -> _Cancelling:
        """Ask once, and do not wait for the answer."""
        if not self._begun:
            self._begun = True
            _thread(self._ask)
        return self

    def _ask(self) -> None:
        patience = _Patience()
        while True:
            try:
                call(self._session, "Jobs.Cancel", JobInfo, id=self._number)
                self.heard.set()
            except NoDaemon:
                if patience.last():
                    continue
            except JobOver:
                self.heard.set()
            except ZonedError as error:
                self._tell(f"the job cannot be cancelled: [{error.code}] {error.message}")
            return


def _look(number: int) -> str:
    return f"the job may go on; zonectl job {number} shows what became of it"


def conclude(job: JobInfo, output: Format, *, interrupted: bool = False) -> None:
    """Print how the job ended. Returns if it is done.

    `interrupted` tells that it was cancelled from here, by Ctrl-C. Raises Partial where something
    is left, the job's own error where it failed, JobCancelled or JobInterrupted.
    """
    if output is Format.YAML:
        emit(output, dataclasses.asdict(job))
    elif output is Format.TABLE:
        click.echo(f"job {job.id} is {job.state}: {job.what}")
        emit(output, {}, *result(job), notes=job.notes)
    match JobState(job.state):
        case JobState.PARTIAL:
            raise _partial(job)
        case JobState.FAILED:
            raise _failed(job)
        case JobState.CANCELLED if interrupted:
            sys.exit(_INTERRUPTED)
        case JobState.CANCELLED:
            raise JobCancelled(f"job {job.id} was cancelled")
        case JobState.INTERRUPTED:
            why = job.error.message if job.error else "the daemon ended during it"
            hint = job.error.hint if job.error else "ask for it again"
            raise JobInterrupted(f"job {job.id} was interrupted: {why}", hint=hint)


def _partial(job: JobInfo) -> ZonedError:
    if job.error is not None and not job.left_behind:
        return revive(job.error.code, job.error.message, job.error.hint)
    parts = [job.error.message] if job.error else []
    hint = job.error.hint if job.error else ""
    if job.left_behind:
        parts.append(left_behind(job))
        hint = hint or "zoned-zones(7) tells what each reason means and what to do"
    return Partial("; ".join(parts) or f"something is left of job {job.id}", hint=hint)


def _failed(job: JobInfo) -> ZonedError:
    if job.error is None:
        return Bug(f"job {job.id} failed and does not say why", hint="see the daemon's log")
    return revive(job.error.code, job.error.message, job.error.hint)
