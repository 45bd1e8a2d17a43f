# SPDX-License-Identifier: Apache-2.0
"""What a move is asked to be: whose pages, where to, how gently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zoned.model.migration import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned.engine.migration.route import Route
    from zoned.kernel.process import Process
    from zoned.model.dma.offer import Span

STALL = 0.010
"""Seconds that a page may be out of use, unless another bound is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How gently pages move."""

    stall: float = STALL
    """seconds that a page may be out of use"""
    rate: float | None = None
    """bytes a second"""
    movers: int = 1
    """threads that move pages at the same time"""


class Scope(Protocol):
    """The processes whose pages are to move."""

    def processes(self) -> Sequence[Process]:
        """Return those that there are now. Called again before every look: programs fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move of pages."""

    what: str
    scope: Scope
    route: Route
    sharing: Sharing = Sharing.JOB
    pace: Pace = Pace()
    check: Callable[[int, int], None] | None = None
    """called with the bytes that are to move, and how many of these are hugetlb pages, before a
    page moves; raises NoRoom"""
    fixed: tuple[Span, ...] = ()
    """memory that stays where it is, wherever that is"""
