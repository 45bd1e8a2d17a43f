# SPDX-License-Identifier: Apache-2.0
"""A fixed part and one that grows, learned by watching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.engine.migration.line import Line


def line_of(*observations: tuple[float, float]) -> Line:
    line = Line()
    for amount, seconds in observations:
        line.learn(amount, seconds)
    return line


def test_nothing_is_known_at_first() -> None:
    line = Line()
    assert not line.known
    assert line.fit() == (0.0, 0.0)
    assert line.seconds(1000) == line.usual == 0.0
    line.learn(1, 1)
    assert line.known


@given(
    st.floats(1e-4, 1), st.floats(1e-9, 1e-6), st.permutations([1000, 50_000, 200_000, 1_000_000])
)
def test_what_lies_on_a_line_is_found(fixed: float, slope: float, amounts: list[int]) -> None:
    line = line_of(*((amount, fixed + slope * amount) for amount in amounts * 3))
    assert line.fit() == pytest.approx((fixed, slope), rel=1e-3, abs=1e-9)
    assert line.seconds(5e6) == pytest.approx(fixed + slope * 5e6, rel=1e-3)


def test_of_one_amount_all_is_taken_to_grow() -> None:
    assert line_of(*[(100, 2.0)] * 9).fit() == pytest.approx((0.0, 0.02))


def test_hardly_different_amounts_say_nothing_of_the_slope() -> None:
    fixed, slope = line_of((100, 1.0), (101, 1.001)).fit()
    assert fixed == 0.0
    assert slope == pytest.approx(1.901 / 191)


@pytest.mark.parametrize("observations", [[(1, 9.0), (100, 1.0)], [(100, 1.0), (1000, 100.0)]])
def test_neither_part_is_ever_negative(observations: list[tuple[float, float]]) -> None:
    fixed, slope = line_of(*observations).fit()
    assert fixed == 0.0
    assert slope > 0


def test_the_usual_amount_is_that_of_late() -> None:
    assert line_of((100, 1.0), (100, 9.0)).usual == pytest.approx(100)
    assert line_of(*[(100, 1.0)] * 9, *[(400, 1.0)] * 30).usual == pytest.approx(400, rel=0.05)


def test_newer_observations_count_more() -> None:
    old = [(amount, 1e-6 * amount) for amount in (100, 1000)] * 20
    new = [(amount, 9e-6 * amount) for amount in (100, 1000)] * 20
    assert line_of(*old, *new).fit()[1] == pytest.approx(9e-6, rel=0.05)
