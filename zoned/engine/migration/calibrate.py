# SPDX-License-Identifier: Apache-2.0
"""Finding out what a move costs here, by moving some memory of our own."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

from zoned.engine.migration.batch import move_batch
from zoned.engine.migration.look import PAGE
from zoned.errors import KernelRefused
from zoned.kernel.syscalls import MPOL_MF_MOVE

if TYPE_CHECKING:
    from collections.abc import Collection

    from zoned.engine.migration.costs import Costs

_BYTES = 8 << 20
_BATCHES = (16, 256, 1024)
"""Pages a call: different numbers, so that the fixed cost shows."""


def calibrate(costs: Costs, targets: Collection[int], sources: Collection[int]) -> None:
    """Learn what a batch costs between these nodes, unless it is known from earlier moves.

    Takes 8 MiB for a moment, of this process's own. Where it may not use the nodes, nothing is
    learned.
    """
    others = sorted(set(sources) - set(targets))
    if costs.batches.known or not others or not targets:
        return
    with mmap.mmap(-1, _BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        array = np.frombuffer(memory, np.uint8)
        array[::PAGE] = 1
        begin = int(array.ctypes.data)
        addresses = begin + np.arange(0, _BYTES, PAGE, dtype=np.uint64)
        try:
            _move(costs, addresses, others[0], min(targets))
        except KernelRefused:
            return
        finally:
            del array


def _move(costs: Costs, addresses: np.ndarray, source: int, target: int) -> None:
    pid = os.getpid()
    move_batch(pid, addresses, np.full(len(addresses), source, np.int32), MPOL_MF_MOVE)
    at = 0
    for count in _BATCHES:
        part = addresses[at : at + count]
        result = move_batch(pid, part, np.full(count, target, np.int32), MPOL_MF_MOVE)
        moved = int((result.status == target).sum())
        if moved == count:
            costs.batches.learn(count * PAGE, result.seconds)
        at += count
