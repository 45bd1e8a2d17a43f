# SPDX-License-Identifier: Apache-2.0
"""Which part of a reservation becomes a buffer. Pure: spans in, spans out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.errors import PoolExhausted
from zoned.model.dma.offer import Span
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The buffer that somebody wants."""

    size: int
    """bytes"""
    align: int = 1
    """a power of two that each segment's address is to be a multiple of"""
    segments: int | None = None
    """the most that there may be; None is any number"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How much of a reservation is free, and in what pieces. Sizes in bytes."""

    free: int
    largest: int
    """the longest run of free addresses"""
    runs: int

    @property
    def fragmentation(self) -> float:
        """The share of what is free that lies outside of the longest run: 0 to 1."""
        return 1 - self.largest / self.free if self.free else 0.0


def joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans as runs: ascending, those that touch as one. They do not overlap."""
    runs: list[Span] = []
    for span in sorted(spans):
        if runs and runs[-1].end == span.start:
            runs[-1] = Span(runs[-1].start, runs[-1].size + span.size)
        elif span.size:
            runs.append(span)
    return tuple(runs)


def usage(free: Iterable[Span]) -> Usage:
    """Return the figures of what is free."""
    sizes = [run.size for run in joined(free)]
    return Usage(free=sum(sizes), largest=max(sizes, default=0), runs=len(sizes))


def rounded(size: int, granule: int) -> int:
    """Return the size in whole granules."""
    return -(-size // granule) * granule


def allot(free: Iterable[Span], asked: Asked, granule: int) -> tuple[Span, ...]:
    """Return segments for a buffer, ascending, together `asked.size` rounded up to whole granules.

    They are as few as what is free allows: one from the shortest run that does, else the longest
    runs. Each begins at a multiple of the granule (a power of two) and of `asked.align`.

    Raises PoolExhausted where so much is not free, or not in so few segments.
    """
    runs = joined(free)
    left = rounded(asked.size, granule)
    usable = sorted(_usable(runs, granule, max(asked.align, granule)), key=_by_size)
    taken = []
    while left and usable:
        fits = next((run for run in usable if run.size >= left), usable[-1])
        usable.remove(fits)
        taken.append(Span(fits.start, min(left, fits.size)))
        left -= taken[-1].size
    if left or len(taken) > (asked.segments or len(taken)):
        raise _refusal(runs, asked, None if left else len(taken))
    return tuple(sorted(taken))


def _by_size(span: Span) -> tuple[int, int]:
    return span.size, span.start


def _usable(runs: Iterable[Span], granule: int, align: int) -> Iterator[Span]:
    for run in runs:
        start = rounded(run.start, align)
        size = (run.end - start) // granule * granule
        if size > 0:
            yield Span(start, size)


def _refusal(runs: tuple[Span, ...], asked: Asked, segments: int | None) -> PoolExhausted:
    figures = usage(runs)
    longest = f"the longest piece has {format_size(figures.largest)}"
    state = f"{format_size(figures.free)} is free, {longest}"
    if segments is not None:
        return PoolExhausted(
            f"{format_size(asked.size)} would have {segments} segments: {state}",
            hint="allow more segments, ask for less, or wait until others have freed theirs",
        )
    return PoolExhausted(
        f"{format_size(asked.size)} cannot be had: {state}",
        hint="ask for less or for a smaller alignment, or wait until others have freed theirs",
    )
