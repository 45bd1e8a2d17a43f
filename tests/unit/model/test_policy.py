# SPDX-License-Identifier: Apache-2.0
"""What is kept back of a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.model.policy import LEAST_KEPT, Percent, Policy, SystemReserve

GIB = 1 << 30
MIB = 1 << 20


@pytest.mark.parametrize(
    ("hundredths", "total", "kept"),
    [
        (500, 100 * GIB, 5 * GIB),
        (1250, 8 * GIB, GIB),
        (500, GIB, 64 * MIB),
        (500, 2000 * MIB, 100 * MIB),
        (1, 64 * MIB, 64 * MIB),
        (0, 100 * GIB, 0),
        (5000, 256 * MIB + 1, 128 * MIB + 1),
    ],
)
def test_percentage_is_rounded_up_and_has_a_floor(hundredths: int, total: int, kept: int) -> None:
    assert Percent(hundredths=hundredths).of(total) == kept


@pytest.mark.parametrize(
    ("hundredths", "text"), [(500, "5%"), (1250, "12.5%"), (0, "0%"), (9000, "90%"), (7, "0.07%")]
)
def test_percentage_as_text(hundredths: int, text: str) -> None:
    assert str(Percent(hundredths=hundredths)) == text


def test_default_reserve() -> None:
    assert Policy().reserve.of(0, 100 * GIB) == 5 * GIB
    assert Policy().reserve.of(7, 512 * MIB) == 64 * MIB


def test_single_nodes_differ() -> None:
    reserve = SystemReserve(default=GIB, nodes={1: 2 * GIB, 2: Percent(hundredths=1000)})
    assert reserve.of(0, 64 * GIB) == GIB
    assert reserve.of(1, 64 * GIB) == 2 * GIB
    assert reserve.of(2, 50 * GIB) == 5 * GIB


def test_never_more_than_there_is() -> None:
    assert SystemReserve(default=GIB).of(0, MIB) == MIB
    assert SystemReserve().of(0, MIB) == MIB
    assert SystemReserve().of(0, 0) == 0


@given(st.integers(0, 9000), st.integers(0, 1 << 50))
def test_percentage_keeps_within_bounds(hundredths: int, total: int) -> None:
    kept = SystemReserve(default=Percent(hundredths=hundredths)).of(0, total)
    assert 0 <= kept <= total
    assert kept * 10_000 >= min(total, LEAST_KEPT if hundredths else 0) * hundredths
    assert kept * 10_000 >= total * hundredths or kept == total
