# SPDX-License-Identifier: Apache-2.0
"""Moving what a look found, by several threads, and keeping account of each page."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned.engine.migration.batch import Result, move_batch
from zoned.engine.migration.census import Census
from zoned.engine.migration.crew import work_off
from zoned.engine.migration.look import PAGE, where
from zoned.engine.migration.pace import Pacer, Throttle
from zoned.kernel.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL, migrate_pages
from zoned.model.migration import Outcome, Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from zoned.engine.jobs.control import JobControl
    from zoned.engine.migration.costs import Costs
    from zoned.engine.migration.look import Folios
    from zoned.engine.migration.plan import Move
    from zoned.engine.migration.sight import Seen, Sight
    from zoned.kernel.process import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Folios of one process and of about one size, to be moved in batches."""

    process: Process
    folio: int
    """bytes, rounded up to a power of two"""
    addresses: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    targets: NDArray[np.int32]
    flags: int
    whole: bool = False
    """all of the process, by one call of the kernel"""


class Mover:
    """Moves pages for one job. `alive` tells whether a process is still the same one."""

    def __init__(
        self, move: Move, control: JobControl, costs: Costs, alive: Callable[[Process], bool]
    ) -> None:
        self._move = move
        self._control = control
        self._costs = costs
        self._alive = alive
        self._pacer = Pacer(move.pace.stall, costs.work)
        self._throttle = Throttle(move.pace.rate)
        self._lock = threading.Lock()
        self.dealt: dict[int, int] = {}
        """pid -> bytes that moved, over all passes"""
        self.absent: set[tuple[int, int]] = set()
        """(pid, address) of what was counted as absent, over all passes; it may be seen again"""
        self.refused: dict[tuple[int, int], Outcome] = {}
        """(pid, address) -> why it did not move, in this pass"""

    def move(self, sight: Sight) -> int:
        """Move what may move of a look; return the bytes that moved."""
        self.refused = {}
        before = sum(self.dealt.values())
        work_off(self._works(sight), self._step, self._move.pace.movers)
        return sum(self.dealt.values()) - before

    def _works(self, sight: Sight) -> Iterator[Work]:
        begin, counted = 0, Census()
        for seen in sight.seen:
            if not seen.size:
                continue
            works = self._works_of(sight, seen, counted, begin)
            if seen.whole and self._kernel_may:
                works = self._whole_or(seen, list(works))
            for work in works:
                begin += len(work.addresses)
                yield work

    @property
    def _kernel_may(self) -> bool:
        """Whether migrate_pages(2) would do the same: it moves shared pages too."""
        return self._move.sharing is Sharing.ALL and len(self._move.route.targets) == 1

    def _whole_or(self, seen: Seen, works: list[Work]) -> Iterator[Work]:
        """Put one call of the kernel's in place of a small process's works, if that is cheaper."""
        if not works or not self._costs.prefer_whole(seen.size, len(works), self._move.pace.stall):
            yield from works
            return
        yield Work(
            process=seen.process,
            folio=PAGE,
            addresses=np.concatenate([work.addresses for work in works]),
            sizes=np.concatenate([work.sizes for work in works]),
            targets=np.concatenate([work.targets for work in works]),
            flags=MPOL_MF_MOVE_ALL,
            whole=True,
        )

    def _works_of(self, sight: Sight, seen: Seen, counted: Census, begin: int) -> Iterator[Work]:
        for folios, may in sight.movable(seen, counted):
            chosen = folios.only(may)
            targets = self._move.route.assign(chosen.nodes, begin)
            begin += len(chosen)
            for folio, flags, mask in _classes(chosen):
                found = chosen.only(mask)
                yield Work(
                    process=seen.process,
                    folio=folio,
                    addresses=found.addresses,
                    sizes=found.sizes,
                    targets=targets[mask],
                    flags=flags,
                )

    def _step(self, work: Work) -> None:
        if work.whole:
            self._call_whole(work)
            return
        at = 0
        while at < len(work.addresses):
            if not self._alive(work.process):
                return
            most = self._throttle.most(self._pacer.batch(work.folio) * work.folio) // work.folio
            end = min(len(work.addresses), at + max(1, most))
            self._batch(work, slice(at, end))
            at = end

    def _batch(self, work: Work, part: slice) -> None:
        size = int(work.sizes[part].sum())
        self._ready(size)
        result = move_batch(work.process.pid, work.addresses[part], work.targets[part], work.flags)
        if 2 * self._account(work, part, size, result) > size:
            self._pacer.learn(work.folio, size, result.busy)
            self._costs.batches.learn(size, result.seconds)

    def _ready(self, size: int) -> None:
        """Wait for the turn of `size` bytes. Raises Cancelled, Suspended."""
        delay = self._throttle.delay(size, time.monotonic())
        if delay:
            self._control.wait(delay)
        else:
            self._control.checkpoint()

    def _call_whole(self, work: Work) -> None:
        """Let the kernel move the process in one go, and ask what became of its pages."""
        if not self._alive(work.process):
            return
        pid, targets = work.process.pid, self._move.route.nodes
        size = int(work.sizes.sum())
        self._ready(size)
        begin = time.monotonic()
        try:
            migrate_pages(pid, self._sources(pid, work), targets)
        except OSError:
            # What it could not do is seen below, and left to the next pass's batches.
            self._costs.whole.learn(size, 1.0)
        else:
            self._costs.whole.learn(size, time.monotonic() - begin)
        seconds = time.monotonic() - begin
        self._account_status(work, where(pid, work.addresses), seconds)

    def _sources(self, pid: int, work: Work) -> frozenset[int]:
        now = np.unique(where(pid, work.addresses)).tolist()
        return frozenset(node for node in now if node >= 0) - self._move.route.nodes

    def _account_status(self, work: Work, status: NDArray[np.int32], seconds: float) -> None:
        result = Result(status=status, seconds=seconds)
        self._account(work, slice(0, len(work.addresses)), int(work.sizes.sum()), result)

    def _account(self, work: Work, part: slice, size: int, result: Result) -> int:
        """Return the bytes that moved."""
        self._control.called(result.seconds)
        if result.all_moved:
            self._deal(work, size)
            return size
        moved, addresses, sizes = 0, work.addresses[part], work.sizes[part]
        for mask, outcome in result.outcomes(work.targets[part]):
            if not mask.any():
                continue
            if outcome is Outcome.MOVED:
                moved = int(sizes[mask].sum())
                self._deal(work, moved)
            elif outcome is Outcome.ABSENT:
                self._control.count(outcome, self._newly_absent(work, addresses[mask], sizes[mask]))
            elif outcome is not Outcome.GONE:
                with self._lock:
                    for address in addresses[mask].tolist():
                        self.refused[work.process.pid, address] = outcome
        return moved

    def _newly_absent(
        self, work: Work, addresses: NDArray[np.uint64], sizes: NDArray[np.int64]
    ) -> int:
        """Return the bytes that were not counted before: memory of devices is seen each time."""
        found = dict(zip(addresses.tolist(), sizes.tolist(), strict=True))
        with self._lock:
            new = {(work.process.pid, each) for each in found} - self.absent
            self.absent |= new
        return sum(found[address] for _, address in new)

    def _deal(self, work: Work, size: int) -> None:
        self._control.count(Outcome.MOVED, size)
        with self._lock:
            pid = work.process.pid
            self.dealt[pid] = self.dealt.get(pid, 0) + size


def _classes(folios: Folios) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Split folios by size and by the flags that moving them takes."""
    orders = np.frexp(folios.sizes - 1)[1]
    for order in np.flatnonzero(np.bincount(orders)).tolist():
        for shared, flags in ((False, MPOL_MF_MOVE), (True, MPOL_MF_MOVE_ALL)):
            mask = (orders == order) & (folios.shared == shared)
            if mask.any():
                yield 1 << order, flags, mask
