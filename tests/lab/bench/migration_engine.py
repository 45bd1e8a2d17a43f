# SPDX-License-Identifier: Apache-2.0
"""The engine that moves pages, driven in this process: no daemon, no client. Runs in the guest."""

import resource
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoned.engine.jobs.control import JobControl
from zoned.engine.migration import mover
from zoned.engine.migration.batch import Result, move_batch
from zoned.engine.migration.census import Census
from zoned.engine.migration.costs import Costs
from zoned.engine.migration.look import Eyes
from zoned.engine.migration.plan import Move, Pace
from zoned.engine.migration.route import Route
from zoned.engine.migration.sight import Sight
from zoned.engine.migration.task import move_pages
from zoned.engine.operations.scopes import Family
from zoned.kernel.process import find
from zoned.kernel.root import Root
from zoned.kernel.syscalls import MPOL_MF_MOVE, move_pages_raw


class Engine:
    """One engine, which learns over its moves."""

    def __init__(self) -> None:
        # All that a move needs of a machine.
        self._machine: Any = SimpleNamespace(root=Root(), costs=Costs())

    def move(self, pid: int, source: int, target: int, *, stall: float) -> dict[str, float]:
        """Move a process's pages with one mover, as a job does; return what that used, in seconds.

        `seconds` is elapsed time; `cpu` is all processor time, `user` what of it was spent outside
        the kernel; `in_calls` and `cpu_in_calls` are what the `calls` of move_pages(2) took.
        """
        control = JobControl(lambda work: work(), lambda: None)
        move = self._wanted(pid, source, target, stall)
        with Stopwatch() as watch:
            before, cpu, begin = _user(), time.process_time(), time.perf_counter()
            move_pages(self._machine, control, move)
            return {
                "seconds": time.perf_counter() - begin,
                "cpu": time.process_time() - cpu,
                "user": _user() - before,
                "in_calls": watch.seconds,
                "cpu_in_calls": watch.cpu,
                "calls": watch.calls,
                "longest_call": watch.longest,
            }

    def look(self, pid: int, source: int, target: int) -> float:
        """Find out what of a process is misplaced, down to folios; return seconds."""
        move = self._wanted(pid, source, target, 1.0)
        processes = move.scope.processes()
        with Eyes(self._machine.root) as eyes:
            begin = time.perf_counter()
            sight = Sight(eyes, move).take(processes)
            for seen in sight.seen:
                for _ in sight.movable(seen, Census()):
                    pass
            return time.perf_counter() - begin

    def _wanted(self, pid: int, source: int, target: int, stall: float) -> Move:
        root = self._machine.root
        return Move(
            what="bench",
            scope=Family(root, find(root, pid)),
            route=Route(targets={target: 1}, sources=frozenset({source})),
            pace=Pace(stall=stall, movers=1),
        )


def move_known(pid: int, addresses: NDArray[np.uint64], target: int, pages: int) -> float:
    """Move pages, so many a call; return seconds."""
    targets = np.full(len(addresses), target, np.int32)
    begin = time.perf_counter()
    for at in range(0, len(addresses), pages):
        part = slice(at, at + pages)
        move_batch(pid, addresses[part], targets[part], MPOL_MF_MOVE)
    return time.perf_counter() - begin


class Stopwatch:
    """While it is entered, times the calls of move_pages(2) that the engine makes to move."""

    def __init__(self) -> None:
        self.seconds = self.cpu = self.longest = 0.0
        self.calls = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "Stopwatch":
        # The module's own name for it, which has no other way in.
        vars(mover)["move_batch"] = self._move_batch
        return self

    def __exit__(self, *_: object) -> None:
        vars(mover)["move_batch"] = move_batch

    def _move_batch(self, pid: int, addresses: Any, targets: Any, flags: int) -> Result:
        return move_batch(pid, addresses, targets, flags, self._call)

    def _call(self, *arguments: Any) -> int:
        cpu, begin = time.thread_time(), time.perf_counter()
        try:
            return move_pages_raw(*arguments)
        finally:
            seconds, cpu = time.perf_counter() - begin, time.thread_time() - cpu
            with self._lock:
                self.seconds, self.cpu = self.seconds + seconds, self.cpu + cpu
                self.longest = max(self.longest, seconds)
                self.calls += 1


def _user() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime
