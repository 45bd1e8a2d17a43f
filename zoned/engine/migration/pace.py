# SPDX-License-Identifier: Apache-2.0
"""How much to move at a time, and how fast. Knows no clock but the times it is told."""

from __future__ import annotations

import threading

from zoned.engine.migration.line import Line

PAGE = 4096
_FIRST_BYTES = 64 * PAGE
_LEAST_BYTES = 64 * PAGE
"""Below that the fixed cost of a call is nearly all of it: it drains lists on every CPU."""
_MOST_BYTES = 65536 * PAGE
_EVERY = 4
_MARGIN = 0.7
"""The part of the bound that is aimed at: calls vary."""


class Pacer:
    """Chooses batch sizes so that no page is out of use for longer than a bound.

    A page can be used until the kernel begins to move the batch that it is in. So what counts is
    the time that the call works, not what it waits for at its beginning (other CPUs that drain
    their lists, lru_cache_disable in mm/swap.c), and of that the part that grows with the batch.
    Folios of each size have a pace of their own: copying weighs more for huge ones, the rest for
    small ones. Thread-safe.
    """

    def __init__(self, bound: float) -> None:
        """Take the bound in seconds."""
        self._bound = bound
        self._lines: dict[int, Line] = {}
        self._sizes: dict[int, int] = {}
        self._calls: dict[int, int] = {}
        self._lock = threading.Lock()

    def batch(self, folio: int) -> int:
        """Return how many folios of this many bytes to move in the next call; at least one.

        Now and then it is another number than before: from calls of one size alone nobody can
        tell which part of their time grows with the size.
        """
        with self._lock:
            self._calls[folio] = calls = self._calls.get(folio, 0) + 1
            size = self._sizes.get(folio, _FIRST_BYTES)
            if calls % _EVERY == 0:
                size = size // 2 if size > _LEAST_BYTES else size * 2
        return max(1, size // folio)

    def learn(self, folio: int, count: int, seconds: float) -> None:
        """Take note of how long a call for `count` folios worked (its processor's time)."""
        with self._lock:
            line = self._lines.setdefault(folio, Line())
            line.learn(count * folio, seconds)
            _, slope = line.fit()
            wanted = int(_MARGIN * self._bound / slope) if slope else _MOST_BYTES
            # One call out of line must not decide: at most twice or half of what it was.
            now = self._sizes.get(folio, _FIRST_BYTES)
            wanted = max(now // 2, min(wanted, max(now, count * folio) * 2))
            self._sizes[folio] = max(_LEAST_BYTES, min(wanted, _MOST_BYTES))


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
