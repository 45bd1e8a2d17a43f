# SPDX-License-Identifier: Apache-2.0
"""How often the processes of one job map each shared page: is anybody else using it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BITS = 15
_LENGTH = 1 << _BITS
"""Page frames in one table: tables exist only where something was counted."""


class Census:
    """Counts mappings by page frame. Two bytes for each page near one that is counted."""

    def __init__(self) -> None:
        self._tables: dict[int, NDArray[np.uint16]] = {}

    def add(self, pfns: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Count one more mapping of each; tell which were not known before.

        A page that is listed twice is new only once.
        """
        new = np.zeros(len(pfns), np.bool_)
        if not len(pfns):
            return new
        unique, index, counts = np.unique(pfns, return_index=True, return_counts=True)
        fresh = np.empty(len(unique), np.bool_)
        for part, table, places in self._parts(unique):
            fresh[part] = table[places] == 0
            # A page that is mapped more often than that is not counted any further.
            table[places] = np.minimum(table[places] + counts[part].astype(np.uint32), 65535)
        new[index] = fresh
        return new

    def count(self, pfns: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """Return how many mappings were counted of each."""
        if not len(pfns):
            return np.zeros(0, np.uint16)
        unique, inverse = np.unique(pfns, return_inverse=True)
        found = np.zeros(len(unique), np.uint16)
        for part, table, places in self._parts(unique):
            found[part] = table[places]
        return found[inverse]

    def _parts(
        self, pfns: NDArray[np.uint64]
    ) -> Iterator[tuple[slice, NDArray[np.uint16], NDArray[np.int64]]]:
        """Split sorted frames by table."""
        numbers = (pfns >> np.uint64(_BITS)).astype(np.int64)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        for begin, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
            number = int(numbers[begin])
            table = self._tables.get(number)
            if table is None:
                table = self._tables[number] = np.zeros(_LENGTH, np.uint16)
            places = (pfns[begin:end] & np.uint64(_LENGTH - 1)).astype(np.int64)
            yield slice(begin, end), table, places
