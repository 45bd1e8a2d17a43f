# SPDX-License-Identifier: Apache-2.0
"""Which pages have to move, and where each goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoned.engine.migration.route import Route, among


def int32(*numbers: int) -> Any:
    return np.array(numbers, np.int32)


@pytest.mark.parametrize(
    ("sources", "wrong"),
    [
        (None, [True, False, True, False, True]),
        (frozenset({0}), [True, False, False, False, False]),
        (frozenset({1, 2}), [False, False, True, False, False]),
    ],
)
def test_what_has_to_move(sources: frozenset[int] | None, wrong: list[bool]) -> None:
    route = Route(targets={1: 0}, sources=sources)
    assert route.misplaced(int32(0, 1, 2, -1, 9)).tolist() == wrong


def test_no_node_is_not_the_last_one() -> None:
    nodes, last = int32(-1, 1023, 0), frozenset({1023})
    assert Route(targets={1: 0}, sources=last).misplaced(nodes).tolist() == [False, True, False]
    assert among(nodes, last).tolist() == [False, True, False]


def test_as_many_sources_as_targets_are_pairs() -> None:
    route = Route(targets={7: 1, 5: 99}, sources=frozenset({2, 0}))
    assert route.assign(int32(0, 2, 2, 0)).tolist() == [5, 7, 7, 5]
    assert route.nodes == {5, 7}


def test_all_go_to_the_only_target() -> None:
    for sources in (None, frozenset({0, 1})):
        found = Route(targets={3: 0}, sources=sources).assign(int32(0, 1, 0))
        assert found.tolist() == [3, 3, 3]
        assert found.dtype == np.dtype(np.int32)


@pytest.mark.parametrize("weights", [{0: 1, 3: 1}, {0: 1 << 30, 3: 3 << 30}, {1: 0, 2: 5, 4: 5}])
def test_pages_are_dealt_out_by_weight(weights: dict[int, int]) -> None:
    """Over any long stretch, wherever it begins."""
    for begin in (0, 512 * 777):
        found = Route(targets=weights).assign(np.zeros(512 * 1000, np.int32), begin)
        whole = sum(weights.values())
        for node, weight in weights.items():
            assert (found == node).mean() == pytest.approx(weight / whole, abs=0.01)


def test_neighbours_stay_together() -> None:
    found = Route(targets={0: 1, 1: 1}).assign(np.full(512 * 40, 5, np.int32))
    changes = np.flatnonzero(np.diff(found)) + 1
    assert len(changes) > 10
    assert not (changes % 512).any()


def test_windows_are_dealt_out_as_if_they_were_one() -> None:
    route = Route(targets={0: 2, 1: 1, 2: 4})
    whole = route.assign(np.full(9000, 5, np.int32))
    parts = [route.assign(np.full(3000, 5, np.int32), begin) for begin in (0, 3000, 6000)]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_without_any_weight_it_still_knows_a_target() -> None:
    found = Route(targets={1: 0, 2: 0}).assign(np.zeros(5000, np.int32))
    assert set(found.tolist()) <= {1, 2}
