# SPDX-License-Identifier: Apache-2.0
"""What moving costs on this machine, as it was measured; and the choice that follows from it."""

from __future__ import annotations

from zoned.engine.migration.line import Line

_SMALL = 16 << 20
"""Bytes above which one call for a whole process is never tried: it cannot be interrupted."""


class Costs:
    """Kept over jobs, so that later ones know from the start. Amounts are bytes."""

    def __init__(self) -> None:
        self.batches = Line()
        """move_pages(2), a call each"""
        self.whole = Line()
        """migrate_pages(2), a process each"""
        self._work: dict[int, Line] = {}

    def work(self, folio: int) -> Line:
        """Return how long move_pages(2) works for folios of so many bytes, without its waits."""
        # What it was a moment ago counts: a machine gets busy, and slower.
        return self._work.setdefault(folio, Line(fade=0.7))

    def prefer_whole(self, size: int, calls: int, bound: float) -> bool:
        """Tell whether one migrate_pages(2) should move a process that has `size` bytes to move.

        It is quicker where a process is small, because it needs no list of pages; but it walks all
        of the process and cannot be paused, so it must be expected to end within the bound
        (seconds). `calls` is how many calls of move_pages(2) it would be instead.
        """
        if size > _SMALL:
            return False
        if not self.whole.known:
            return size <= _SMALL // 4  # Somebody has to be the first.
        expected = self.whole.seconds(size)
        if expected > bound:
            return False
        fixed, slope = self.batches.fit()
        return not self.batches.known or expected < fixed * calls + slope * size

    def seconds(self, size: int, *, movers: int, rate: float | None) -> float | None:
        """Return how long a move of `size` bytes should take; None where nothing is known."""
        if not self.batches.known:
            return None
        _, slope = self.batches.fit()
        return max(slope * size / movers, size / rate if rate else 0.0)
