# SPDX-License-Identifier: Apache-2.0
"""Jobs whose work a test leads by the hand."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from zoned.engine.jobs.book import JobBook
from zoned.engine.jobs.runner import JobRunner
from zoned.model.job import JobKind, JobRequest
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from zoned.engine.jobs.control import Body, JobControl, T
    from zoned.model.job import Job

LIMIT = 20.0
MIB = 1 << 20


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.001)


def at_once(work: Callable[[], T]) -> T:
    """Change the machine in the caller's own thread."""
    return work()


def job_request(*zones: str, what: str = "test", **parameters: Any) -> JobRequest:
    return JobRequest(kind=JobKind.MIGRATE, what=what, zones=zones, parameters=parameters)


class Work:
    """A body that moves 1 MiB whenever it is let, and ends when told how.

    Between any two batches it passes a checkpoint.
    """

    def __init__(self) -> None:
        self.began = threading.Event()
        self.tidied = threading.Event()
        self.batches = 0
        self._orders: queue.Queue[Exception | str] = queue.Queue()
        self.control: JobControl | None = None

    def __call__(self, control: JobControl) -> None:
        self.control = control
        self.began.set()
        try:
            while self._batch(control):
                pass
        finally:
            self.tidied.set()

    def _batch(self, control: JobControl) -> bool:
        control.checkpoint()
        # Looks up now and then, so that a test need not give orders for the job to see a stop.
        try:
            order = self._orders.get(timeout=0.002)
        except queue.Empty:
            return True
        if isinstance(order, Exception):
            raise order
        if order == "move":
            control.count(Outcome.MOVED, MIB)
            self.batches += 1
        return order != "end"

    def move(self, batches: int = 1) -> None:
        """Let it do so many batches."""
        for _ in range(batches):
            self._orders.put("move")

    def end(self) -> None:
        """Let it come to its end."""
        self._orders.put("end")

    def fail(self, error: Exception) -> None:
        """Have it raise an error."""
        self._orders.put(error)


class Bench:
    """A runner on a folder, and whatever it tells."""

    def __init__(self, folder: Path, boot: str | None = "boot") -> None:
        self.folder = folder
        self.boot = boot
        self.works: dict[int, Work] = {}
        self.bodies: Mapping[JobKind, Callable[[JobRequest], Body]] = {
            JobKind.MIGRATE: lambda request: self.works[request.parameters["key"]]
        }
        self.runner = self.daemon()

    def daemon(self) -> JobRunner:
        """Return a runner as a daemon that starts now would have it."""
        self.heard: list[int] = []
        self.runner = JobRunner(JobBook(self.folder, self.boot), self.bodies, at_once)
        self.runner.subscribe(self.heard.append)
        return self.runner

    def start(self, *zones: str, uid: int = 0) -> tuple[int, Work]:
        """Start a job whose work is led by the test."""
        work, key = Work(), len(self.works)
        self.works[key] = work
        return self.runner.start(job_request(*zones, key=key), uid, work).id, work

    def started(self, *zones: str) -> tuple[int, Work]:
        """Start a job, and wait until its work has begun."""
        number, work = self.start(*zones)
        assert work.began.wait(LIMIT)
        return number, work

    def over(self, number: int) -> Job:
        """Return the job once it is over."""
        until(lambda: self.runner.get(number).state.is_over)
        return self.runner.get(number)

    def close(self) -> None:
        """End what is left."""
        self.runner.stop()
