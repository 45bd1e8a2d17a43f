# SPDX-License-Identifier: Apache-2.0
"""How much to move at a time, and how fast. Knows no clock but the times it is told."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.engine.migration.line import Line

PAGE = 4096
_AT_ONCE = 512 * PAGE
"""What the kernel takes out of use at once: so much, or one folio that is larger."""
_LEAST_BYTES = 64 * PAGE
"""Below that the fixed cost of a call is nearly all of it: it drains lists on every CPU."""
_MOST_BYTES = 65536 * PAGE
_CALL = 0.1
"""Seconds that a call is to work at most: so soon a job can be paused."""
_MARGIN = 0.7
"""The part of the bound that is aimed at: calls vary."""
_EVERY = 4
_GROWTH = 4
"""How many times larger than those lately a call may be."""


class Pacer:
    """Chooses batch sizes so that no page is out of use for longer than a bound.

    A page can be used until the kernel begins to move the group that it is in. A call moves its
    pages in groups, of NR_MAX_BATCHED_MIGRATION pages since Linux 6.3 and of one folio before
    (migrate_pages in mm/migrate.c). So a call for much holds nobody up for longer than one for a
    group; only where a group alone would take longer than the bound, batches are smaller. What
    counts is the time that a call works, not what it waits for at its beginning (other CPUs that
    drain their lists, lru_cache_disable in mm/swap.c). Folios of each size have a pace of their
    own: copying weighs more for huge ones, the rest for small ones. Thread-safe.
    """

    def __init__(self, bound: float, work: Callable[[int], Line]) -> None:
        """Take the bound in seconds, and what tells how long calls for folios of a size work."""
        self._bound = bound
        self._work = work
        self._calls = itertools.count(1)

    def batch(self, folio: int) -> int:
        """Return how many folios of this many bytes to move in the next call; at least one."""
        line = self._work(folio)
        _, slope = line.fit()
        if not slope:
            size = _AT_ONCE
        elif slope * max(folio, _AT_ONCE) <= self._bound:
            # One call out of line must not decide.
            size = int(min(_CALL / slope, _GROWTH * line.usual))
        else:
            size = int(_MARGIN * self._bound / slope)
            # From calls of one size alone nobody can tell which part of their time grows with it.
            if next(self._calls) % _EVERY == 0:
                size //= 2
        return max(1, min(max(size, _LEAST_BYTES), _MOST_BYTES) // folio)

    def learn(self, folio: int, size: int, seconds: float) -> None:
        """Take note of how long a call that moved `size` bytes worked (its processor's time)."""
        self._work(folio).learn(size, seconds)


class Throttle:
    """Keeps several movers together below a rate. Thread-safe."""

    def __init__(self, rate: float | None) -> None:
        """Take bytes a second; None is no limit."""
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def delay(self, size: int, now: float) -> float:
        """Return the seconds to wait before moving `size` bytes, and book them."""
        if self._rate is None:
            return 0.0
        with self._lock:
            begin = max(self._free_at, now)
            self._free_at = begin + size / self._rate
            return begin - now

    def most(self, size: int) -> int:
        """Return how much of `size` to move at once: no more than a tenth of a second's worth."""
        return size if self._rate is None else max(1, min(size, int(self._rate / 10)))
