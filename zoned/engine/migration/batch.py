# SPDX-License-Identifier: Apache-2.0
"""One batch: a call of move_pages(2), and the truth about it.

The call stops at the first group of pages that it cannot move all of, so that pages behind it are
never tried; it can fail with ENOMEM although most moved, and it leaves the statuses of both
untouched. So statuses are filled in beforehand, what is not known afterwards is asked for, and
what was not tried is tried again without what stood in the way.
Sources: move_pages(2); do_pages_move in mm/migrate.c.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoned.engine.migration.look import where
from zoned.errors import KernelRefused
from zoned.kernel.syscalls import NOT_TRIED, move_pages_raw
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OUTCOMES = {
    -errno.EACCES: Outcome.SHARED,
    -errno.ENOENT: Outcome.ABSENT,
    -errno.EFAULT: Outcome.ABSENT,
    -errno.ENOMEM: Outcome.NO_MEMORY,
    -errno.ESRCH: Outcome.GONE,
}
_GONE = frozenset({errno.ESRCH, errno.EINVAL})


class Call(Protocol):
    """move_pages_raw, or what stands in for it."""

    def __call__(
        self,
        pid: int,
        addresses: NDArray[np.uint64],
        nodes: NDArray[np.int32] | None,
        status: NDArray[np.int32],
        flags: int,
        /,
    ) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of each page of a batch: the node it is on, or a negative errno."""

    status: NDArray[np.int32]
    seconds: float
    """of the longest call"""
    busy: float = 0.0
    """seconds that the longest call worked on its processor, without what it waited for"""
    ended: bool = False
    """the process is gone"""
    all_moved: bool = False

    def outcomes(self, targets: NDArray[np.int32]) -> list[tuple[NDArray[np.bool_], Outcome]]:
        """Return disjoint masks that cover all pages, each with its outcome."""
        moved = self.status == targets
        found = [(moved, Outcome.MOVED)]
        if self.ended:
            return [*found, (~moved, Outcome.GONE)]
        rest = ~moved
        for code, outcome in _OUTCOMES.items():
            mask = rest & (self.status == code)
            if mask.any():
                found.append((mask, outcome))
                rest &= ~mask
        # On another node, not tried to the end, or refused: the kernel could not get hold of it.
        return [*found, (rest, Outcome.BUSY)]


def move_batch(
    pid: int,
    addresses: NDArray[np.uint64],
    targets: NDArray[np.int32],
    flags: int,
    call: Call = move_pages_raw,
) -> Result:
    """Move pages, each to its target, and find out what became of them.

    Raises KernelRefused where the kernel does not let this process be moved there at all.
    """
    status = np.empty(len(addresses), np.int32)
    clock = _Clock()
    with clock:
        failed = _try(call, pid, addresses, targets, status, flags)
    if not failed and np.array_equal(status, targets):
        return clock.result(status, all_moved=True)
    todo, part = np.arange(len(addresses)), status
    while True:
        if failed in _GONE:
            status[todo] = np.where(part >= 0, part, -errno.ESRCH)
            return clock.result(status, ended=True)
        _ask_again(pid, addresses[todo], targets[todo], part, no_memory=failed == errno.ENOMEM)
        status[todo] = part
        todo = todo[part == NOT_TRIED]
        if not len(todo):
            return clock.result(status)
        part = np.empty(len(todo), np.int32)
        with clock:
            failed = _try(call, pid, addresses[todo], targets[todo], part, flags)


class _Clock:
    """Takes the times of calls, and keeps the longest."""

    def __init__(self) -> None:
        self._seconds = self._busy = 0.0

    def __enter__(self) -> None:
        self._begin = time.monotonic(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        begin, worked = self._begin
        self._busy = max(self._busy, time.thread_time() - worked)
        self._seconds = max(self._seconds, time.monotonic() - begin)

    def result(
        self, status: NDArray[np.int32], *, ended: bool = False, all_moved: bool = False
    ) -> Result:
        """Return what came of the calls."""
        return Result(
            status=status,
            seconds=self._seconds,
            busy=self._busy,
            ended=ended,
            all_moved=all_moved,
        )


def _try(
    call: Call,
    pid: int,
    addresses: NDArray[np.uint64],
    targets: NDArray[np.int32],
    status: NDArray[np.int32],
    flags: int,
) -> int:
    """Call the kernel; return the errno of a failure that says something about single pages."""
    try:
        call(pid, addresses, targets, status, flags)
    except OSError as error:
        code = error.errno or 0
        if code in _GONE or code == errno.ENOMEM:
            return code
        raise KernelRefused(
            f"the kernel refuses to move pages of process {pid} to node"
            f" {', '.join(map(str, np.unique(targets)))}: {error.strerror}",
            hint="its cpuset may not include the node: cat /proc/PID/status, Mems_allowed_list"
            if code == errno.EACCES
            else "",
        ) from error
    return 0


def _ask_again(
    pid: int,
    addresses: NDArray[np.uint64],
    targets: NDArray[np.int32],
    status: NDArray[np.int32],
    *,
    no_memory: bool,
) -> None:
    """Find out about the pages that the call left without a status.

    At least the first of them gets one, so that a batch comes to its end.
    """
    unknown = np.flatnonzero(status == NOT_TRIED)
    if not len(unknown):
        return
    failed = _failed_group(status, targets, int(unknown[0]))
    now = where(pid, addresses[unknown])
    known = (now == targets[unknown]) | ((now < 0) & (now != -errno.EBUSY))
    status[unknown[known]] = now[known]
    if no_memory:
        failed |= targets == targets[unknown[0]]  # What is full stays full.
    status[failed & (status == NOT_TRIED)] = -errno.ENOMEM if no_memory else -errno.EBUSY


def _failed_group(
    status: NDArray[np.int32], targets: NDArray[np.int32], first: int
) -> NDArray[np.bool_]:
    """Tell which pages were taken together and not all moved: there the call came to its end.

    A group ends at a page that could not be taken, whose status is written, or at another target.
    """
    ends = (status[first:] != NOT_TRIED) | (targets[first:] != targets[first])
    length = int(ends.argmax()) if ends.any() else len(ends)
    found = np.zeros(len(status), np.bool_)
    found[first : first + length] = True
    return found
