# SPDX-License-Identifier: Apache-2.0
"""What a move would find and do, in full: for those who want to know before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoned.engine.migration.census import Census
from zoned.engine.migration.sight import Sight, first_sighting
from zoned.model.migration import Kind, Outcome, Survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from zoned.engine.migration.look import Eyes, Folios
    from zoned.engine.migration.plan import Move


def preview(eyes: Eyes, move: Move) -> Survey:
    """Look at all pages of the processes, whether they have to move or not."""
    processes = move.scope.processes()
    census, by_node, shared, locked = Census(), dict[int, dict[Kind, int]](), 0, 0
    for process in processes:
        for pages in eyes.resident(process):
            folios = eyes.folios(pages)
            folios = folios.only(first_sighting(census, folios))
            shared += int(folios.sizes[folios.shared].sum())
            locked += int(folios.sizes[folios.locked].sum())
            _count(by_node, folios)
    to_move, huge, stays = _to_move(Sight(eyes, move).take(processes))
    return Survey(
        processes=len(processes),
        by_node=by_node,
        shared=shared,
        locked=locked,
        to_move=to_move,
        huge=huge,
        stays={Outcome.SHARED: stays} if stays else {},
    )


def _to_move(sight: Sight) -> tuple[int, int, int]:
    """Return the bytes that would move, of these hugetlb pages, and those that others map too."""
    to_move = huge = stays = 0
    for _, folios, may in sight.left():
        to_move += int(folios.sizes[may].sum())
        huge += int(folios.sizes[may & folios.huge].sum())
        stays += int(folios.sizes[~may].sum())
    return to_move, huge, stays


def _count(by_node: dict[int, dict[Kind, int]], folios: Folios) -> None:
    for kind, mask in _kinds(folios):
        for node in np.unique(folios.nodes[mask]).tolist():
            if node >= 0:
                size = int(folios.sizes[mask & (folios.nodes == node)].sum())
                kinds = by_node.setdefault(node, {})
                kinds[kind] = kinds.get(kind, 0) + size


def _kinds(folios: Folios) -> Iterator[tuple[Kind, NDArray[np.bool_]]]:
    huge = folios.huge
    large = folios.large & ~huge
    small = ~huge & ~large
    anonymous = small & folios.anonymous
    yield from (
        (Kind.HUGETLB, huge),
        (Kind.THP, large),
        (Kind.ANONYMOUS, anonymous),
        (Kind.FILE, small & ~anonymous),
    )
