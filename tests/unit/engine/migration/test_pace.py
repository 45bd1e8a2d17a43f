# SPDX-License-Identifier: Apache-2.0
"""Batches grow and shrink to the bound, and a rate is kept."""

from __future__ import annotations

import pytest

from zoned.engine.migration.costs import Costs
from zoned.engine.migration.pace import PAGE, Pacer, Throttle

HUGE = 2 << 20
GROUP = 512 * PAGE


def pacer_of(bound: float, costs: Costs | None = None) -> Pacer:
    return Pacer(bound, (costs or Costs()).work)


def settle(pacer: Pacer, slope: float, *, fixed: float = 0.0, folio: int = PAGE) -> float:
    """Let it learn from a machine; return the seconds that grow with the batch it comes to."""
    for _ in range(60):
        size = pacer.batch(folio) * folio
        pacer.learn(folio, size, fixed + slope * size)
    # Every fourth may be smaller.
    return slope * max(pacer.batch(folio), pacer.batch(folio)) * folio


@pytest.mark.parametrize("bound", [0.005, 0.010, 0.050])
@pytest.mark.parametrize("ratio", [1.01, 3.0, 5.0])
def test_where_a_group_takes_longer_than_the_bound_batches_keep_to_it(
    bound: float, ratio: float
) -> None:
    slope = ratio * bound / GROUP
    assert 0.6 * bound < settle(pacer_of(bound), slope) <= bound


@pytest.mark.parametrize("folio", [PAGE, 1 << 16, HUGE])
def test_where_it_does_not_calls_are_as_long_as_a_job_may_be_deaf(folio: int) -> None:
    slope = 0.99 * 0.010 / GROUP
    assert 0.09 < settle(pacer_of(0.010), slope, folio=folio) <= 0.1


def test_a_folio_that_is_larger_than_a_group_is_one() -> None:
    pacer = pacer_of(0.010)
    settle(pacer, 0.006 / GROUP, folio=GROUP)
    settle(pacer, 0.006 / GROUP, folio=2 * GROUP)
    assert (pacer.batch(GROUP), pacer.batch(2 * GROUP)) == (16, 1)


def test_the_fixed_part_of_a_call_stalls_nobody() -> None:
    pacer = pacer_of(0.010)
    assert 0.006 < settle(pacer, 0.020 / GROUP, fixed=0.030) <= 0.010
    # That is only known from calls of different sizes.
    assert len({pacer.batch(PAGE) for _ in range(4)}) == 2


def test_it_follows_a_machine_that_gets_slower() -> None:
    pacer = pacer_of(0.010)
    settle(pacer, 0.006 / GROUP)
    assert 0.006 < settle(pacer, 0.020 / GROUP) <= 0.010


def test_nobody_waits_longer_for_a_first_batch_than_for_any_other() -> None:
    pacer = pacer_of(0.010)
    assert [pacer.batch(folio) for folio in (PAGE, HUGE, 2 * HUGE)] == [512, 1, 1]


def test_one_call_out_of_line_does_not_decide() -> None:
    pacer = pacer_of(0.010)
    pacer.learn(PAGE, GROUP, 1e-9)
    assert pacer.batch(PAGE) == 4 * 512


def test_batches_have_a_least_and_a_most_size() -> None:
    slow, quick = pacer_of(0.010), pacer_of(0.010)
    settle(slow, 1e-3)
    settle(slow, 1e-3, folio=HUGE)
    settle(quick, 1e-18)
    assert (slow.batch(PAGE), slow.batch(HUGE)) == (64, 1)
    assert quick.batch(PAGE) == 65536


def test_what_was_learned_is_known_to_the_next_job_for_each_size() -> None:
    costs = Costs()
    settle(pacer_of(0.010, costs), 1e-9, folio=HUGE)
    later = pacer_of(0.010, costs)
    assert (later.batch(PAGE), later.batch(HUGE)) == (512, 47)


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
