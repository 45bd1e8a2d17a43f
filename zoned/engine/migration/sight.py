# SPDX-License-Identifier: Apache-2.0
"""One look at all processes of a move: what is where, what has to move, and what cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zoned.engine.migration.census import Census
from zoned.engine.migration.look import PAGE
from zoned.engine.migration.route import among
from zoned.model.migration import Sharing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from zoned.engine.migration.look import Eyes, Folios, Resident
    from zoned.engine.migration.plan import Move
    from zoned.kernel.process import Process

KEEP = 8 << 20
"""Pages that are remembered from a look to a move, some 20 bytes each. What is beyond that is
looked at again when its turn comes."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What one process has on the wrong nodes."""

    process: Process
    misplaced: list[Resident] = field(default_factory=list)
    whole: bool = True
    """whether `misplaced` is all of it"""
    size: int = 0
    """bytes on the wrong nodes, each page as often as the process maps it"""


class Sight:
    """What a look found. Pages that several of the processes map count once.

    A look costs little where little is misplaced: what pages are, beside where they are, is only
    asked for those that might move.
    """

    def __init__(self, eyes: Eyes, move: Move) -> None:
        self._eyes = eyes
        self._move = move
        self._census = Census()
        self._kept = 0
        self.seen: list[Seen] = []
        self.misplaced = self.there = self.fixed = 0

    def take(self, processes: Iterable[Process]) -> Sight:
        """Look at processes, each once."""
        for process in processes:
            seen = Seen(process=process)
            self.seen.append(seen)
            for pages in self._eyes.resident(process):
                self._add(seen, pages)
        return self

    def movable(self, seen: Seen, counted: Census) -> Iterator[tuple[Folios, NDArray[np.bool_]]]:
        """Yield what a process has to move, and which of it may move.

        What `counted` has is left out: another process that maps it was asked before.
        """
        for pages in self._misplaced_of(seen):
            # Page by page: what moved for another process lies elsewhere now, and what is told of
            # the frames that it left no longer says which of them belonged together.
            new = pages.only(first_sighting(counted, pages))
            folios = self._eyes.folios(new)
            if len(folios):
                yield folios, self._may_move(folios)

    def left(self) -> Iterator[tuple[Seen, Folios, NDArray[np.bool_]]]:
        """Yield all that is misplaced, each page once, and which of it might move."""
        census = Census()
        for seen in self.seen:
            for folios, may in self.movable(seen, census):
                yield seen, folios, may

    def _add(self, seen: Seen, pages: Resident) -> None:
        new = first_sighting(self._census, pages)
        wrong = self._wrong(pages)
        self.misplaced += int(np.count_nonzero(wrong & new)) * PAGE
        there = among(pages.nodes, self._move.route.nodes)
        self.there += int(np.count_nonzero(there & new)) * PAGE
        found = pages.only(wrong)
        if not len(found):
            return
        seen.size += len(found) * PAGE
        if seen.whole and self._kept + len(found) <= KEEP:
            self._kept += len(found)
            seen.misplaced.append(found)
        else:
            seen.whole = False

    def _wrong(self, pages: Resident) -> NDArray[np.bool_]:
        """Tell which pages have to move."""
        wrong = self._move.route.misplaced(pages.nodes)
        for span in self._move.fixed:
            first, end = np.uint64(span.start // PAGE), np.uint64(span.end // PAGE)
            kept = wrong & (pages.pfns >= first) & (pages.pfns < end)
            self.fixed += int(np.count_nonzero(kept)) * PAGE
            wrong &= ~kept
        return wrong

    def _misplaced_of(self, seen: Seen) -> Iterator[Resident]:
        if seen.whole:
            yield from seen.misplaced
            return
        for pages in self._eyes.resident(seen.process):
            found = pages.only(self._wrong(pages))
            if len(found):
                yield found

    def _may_move(self, folios: Folios) -> NDArray[np.bool_]:
        """Tell which may move, as far as others map them too."""
        if self._move.sharing is Sharing.ALL:
            return np.ones(len(folios), np.bool_)
        may = ~folios.shared
        shared = np.flatnonzero(folios.shared)
        if len(shared):
            pfns = folios.pfns[shared]
            ours = self._eyes.flags.mapcounts(pfns) <= self._census.count(pfns)
            if self._move.sharing is Sharing.MEMORY:
                ours |= ~folios.program[shared]
            may[shared] = ours
        return may


def first_sighting(census: Census, pages: Resident | Folios) -> NDArray[np.bool_]:
    """Tell which pages were not seen before; only shared ones can have been."""
    new = np.ones(len(pages), np.bool_)
    shared = np.flatnonzero(pages.shared)
    if len(shared):
        new[shared] = census.add(pages.pfns[shared])
    return new
