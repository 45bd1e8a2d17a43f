# SPDX-License-Identifier: Apache-2.0
"""One call for a whole process, or a list of pages: what is cheaper and keeps the bound."""

from __future__ import annotations

import pytest

from tests.unit.fakes import GIB, MIB
from zoned.engine.migration.costs import Costs


def costs(*, whole: float | None, batches: float | None, fixed: float = 0.0) -> Costs:
    """Return costs in seconds for each GiB, with a fixed part for each call."""
    found = Costs()
    for size in (MIB, 4 * MIB, 16 * MIB):
        if whole is not None:
            found.whole.learn(size, whole * size / GIB)
        if batches is not None:
            found.batches.learn(size, fixed + batches * size / GIB)
    return found


@pytest.mark.parametrize(
    ("known", "size", "calls", "bound", "whole"),
    [
        # Nobody has tried it yet: only with little.
        (costs(whole=None, batches=None), 4 * MIB, 4, 0.010, True),
        (costs(whole=None, batches=1.0), 4 * MIB + 4096, 4, 0.010, False),
        # It cannot be interrupted, so never with much, and never beyond the bound.
        (costs(whole=0.001, batches=9.0), 17 * MIB, 4, 10.0, False),
        (costs(whole=1.0, batches=9.0), 8 * MIB, 4, 0.010, True),
        (costs(whole=1.0, batches=9.0), 8 * MIB, 4, 0.007, False),
        # The cheaper one.
        (costs(whole=1.0, batches=0.5), 8 * MIB, 4, 0.010, False),
        (costs(whole=1.0, batches=0.5, fixed=0.002), 8 * MIB, 4, 0.010, True),
        (costs(whole=1.0, batches=0.5, fixed=0.002), 8 * MIB, 1, 0.010, False),
        (costs(whole=1.0, batches=None), 8 * MIB, 1, 0.010, True),
    ],
)
def test_the_choice(known: Costs, size: int, calls: int, bound: float, *, whole: bool) -> None:
    assert known.prefer_whole(size, calls, bound) is whole


def test_how_long_a_move_should_take() -> None:
    assert Costs().seconds(GIB, movers=1, rate=None) is None
    known = costs(whole=None, batches=2.0, fixed=0.003)
    assert known.seconds(GIB, movers=1, rate=None) == pytest.approx(2.0)
    assert known.seconds(GIB, movers=4, rate=None) == pytest.approx(0.5)
    assert known.seconds(GIB, movers=4, rate=GIB / 8) == pytest.approx(8.0)
