# SPDX-License-Identifier: Apache-2.0
"""Batches grow and shrink to the bound, and a rate is kept."""

from __future__ import annotations

import pytest

from zoned.engine.migration.pace import PAGE, Pacer, Throttle

HUGE = 2 << 20


def settle(pacer: Pacer, slope: float, *, fixed: float = 0.0, folio: int = PAGE) -> float:
    """Let it learn from a machine; return the seconds that grow with the batch it comes to."""
    for _ in range(60):
        count = pacer.batch(folio)
        pacer.learn(folio, count, fixed + slope * count * folio)
    return slope * pacer.batch(folio) * folio


@pytest.mark.parametrize("bound", [0.005, 0.010, 0.050])
@pytest.mark.parametrize("slope", [1e-9, 5e-10])
def test_it_comes_close_to_the_bound_and_stays_below(bound: float, slope: float) -> None:
    assert 0.6 * bound < settle(Pacer(bound), slope) <= bound


def test_the_fixed_part_of_a_call_stalls_nobody() -> None:
    assert 0.006 < settle(Pacer(0.010), 1e-9, fixed=0.030) <= 0.010


def test_it_follows_a_machine_that_gets_slower() -> None:
    pacer = Pacer(0.010)
    settle(pacer, 1e-9)
    assert 0.006 < settle(pacer, 8e-9) <= 0.010


def test_one_call_out_of_line_does_not_decide() -> None:
    pacer = Pacer(0.010)
    settle(pacer, 1e-9)
    before = pacer.batch(PAGE)
    pacer.learn(PAGE, before, 5.0)
    assert pacer.batch(PAGE) >= before // 2
    fresh = Pacer(0.010)
    before = fresh.batch(PAGE)
    fresh.learn(PAGE, before, 1e-9)
    assert fresh.batch(PAGE) <= before * 2


def test_batches_have_a_least_and_a_most_size() -> None:
    slow, quick = Pacer(0.010), Pacer(0.010)
    settle(slow, 1e-3)
    settle(quick, 1e-18)
    assert (slow.batch(PAGE), slow.batch(HUGE)) == (64, 1)
    assert quick.batch(PAGE) == 65536


def test_each_size_of_folio_has_a_pace_of_its_own() -> None:
    pacer = Pacer(0.010)
    assert (pacer.batch(PAGE), pacer.batch(HUGE)) == (64, 1)
    settle(pacer, 1e-10, folio=HUGE)
    assert (pacer.batch(PAGE), pacer.batch(HUGE)) == (64, 33)


def test_without_a_rate_nothing_waits() -> None:
    throttle = Throttle(None)
    assert [throttle.delay(1 << 40, 0.0) for _ in range(3)] == [0.0] * 3
    assert throttle.most(1 << 40) == 1 << 40


def test_a_rate_is_kept_by_all_together() -> None:
    throttle = Throttle(1000.0)
    assert [throttle.delay(100, 5.0) for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert throttle.delay(100, 5.35) == pytest.approx(0.05)
    # What was not used in time is not made up for.
    assert throttle.delay(100, 60.0) == 0.0
    assert throttle.delay(100, 60.0) == pytest.approx(0.1)


def test_a_rate_cuts_batches_to_a_tenth_of_a_second() -> None:
    throttle = Throttle(1000.0)
    assert [throttle.most(size) for size in (5, 100, 101, 1 << 30)] == [5, 100, 100, 100]
    assert Throttle(0.001).most(4096) == 1
