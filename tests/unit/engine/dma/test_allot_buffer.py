# SPDX-License-Identifier: Apache-2.0
"""Which part of a reservation becomes a buffer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zoned.engine.dma.allot_buffer import Asked, Usage, allot, joined, usage
from zoned.errors import PoolExhausted
from zoned.model.dma.offer import Span, without

PAGE = 2 << 20
MIB = 1 << 20


def pages(*numbers: int) -> list[Span]:
    return [Span(number * PAGE, PAGE) for number in numbers]


def test_one_segment_from_the_shortest_run_that_does() -> None:
    free = pages(0, 1, 2, 3, 8, 9, 12)
    assert allot(free, Asked(size=2 * PAGE), PAGE) == (Span(8 * PAGE, 2 * PAGE),)
    assert allot(free, Asked(size=PAGE - 5), PAGE) == (Span(12 * PAGE, PAGE),)


def test_longest_runs_first_where_none_does() -> None:
    free = pages(0, 2, 3, 4, 6, 7, 9)
    taken = allot(free, Asked(size=5 * PAGE), PAGE)
    assert taken == (Span(2 * PAGE, 3 * PAGE), Span(6 * PAGE, 2 * PAGE))


def test_last_piece_from_the_shortest_run_that_does() -> None:
    free = pages(0, 1, 2, 4, 5, 7)
    taken = allot(free, Asked(size=4 * PAGE), PAGE)
    assert taken == (Span(0, 3 * PAGE), Span(7 * PAGE, PAGE))


def test_segments_are_aligned() -> None:
    free = pages(1, 2, 3, 4, 9, 10, 11)
    assert allot(free, Asked(size=PAGE, align=4 * PAGE), PAGE) == (Span(4 * PAGE, PAGE),)
    with pytest.raises(PoolExhausted, match="14MiB is free, the longest piece has 8MiB"):
        allot(free, Asked(size=2 * PAGE, align=8 * PAGE), PAGE)


def test_run_that_does_not_begin_at_a_granule() -> None:
    free = [Span(PAGE // 2, 2 * PAGE)]
    assert allot(free, Asked(size=PAGE), PAGE) == (Span(PAGE, PAGE),)


def test_no_more_segments_than_allowed() -> None:
    free = pages(0, 2, 4)
    assert len(allot(free, Asked(size=3 * PAGE, segments=3), PAGE)) == 3
    with pytest.raises(PoolExhausted, match="would have 3 segments") as caught:
        allot(free, Asked(size=3 * PAGE, segments=2), PAGE)
    assert "allow more segments" in caught.value.hint


def test_not_more_than_is_free() -> None:
    with pytest.raises(PoolExhausted, match="4MiB cannot be had: 2MiB is free"):
        allot(pages(7), Asked(size=2 * PAGE), PAGE)
    with pytest.raises(PoolExhausted, match="0B is free"):
        allot([], Asked(size=1), PAGE)


def test_figures() -> None:
    assert usage([]) == Usage(free=0, largest=0, runs=0)
    assert usage([]).fragmentation == 0
    found = usage(pages(0, 1, 2, 4))
    assert found == Usage(free=8 * MIB, largest=6 * MIB, runs=2)
    assert found.fragmentation == 0.25


def test_spans_that_touch_are_one_run() -> None:
    assert joined([*pages(3, 1, 2), Span(0, 0)]) == (Span(PAGE, 3 * PAGE),)


ASKED = st.builds(
    Asked,
    size=st.integers(1, 24 * PAGE),
    align=st.sampled_from([1, 4096, PAGE, 2 * PAGE, 8 * PAGE]),
    segments=st.none() | st.integers(1, 4),
)


@given(free=st.sets(st.integers(0, 60)), asked=ASKED)
def test_as_few_segments_as_can_be(free: set[int], asked: Asked) -> None:
    """Against counting: the longest aligned runs that together have the size."""
    runs = joined(pages(*free))
    align = max(asked.align, PAGE)
    lengths = sorted((run.end + -(-run.start // align) * -align for run in runs), reverse=True)
    wanted = -(-asked.size // PAGE) * PAGE
    fewest = next((n for n in range(1, len(lengths) + 1) if sum(lengths[:n]) >= wanted), None)
    try:
        taken = allot(pages(*free), asked, PAGE)
    except PoolExhausted:
        assert fewest is None or fewest > (asked.segments or fewest)
    else:
        assert len(taken) == fewest
        assert sum(span.size for span in taken) == wanted
        assert all(span.start % align == 0 for span in taken)


class Pool(RuleBasedStateMachine):
    """Buffers that come and go, next to a set of pages."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = tuple(pages(*range(20), *range(24, 40)))
        self.out: list[tuple[Span, ...]] = []

    @property
    def free(self) -> tuple[Span, ...]:
        return without(self.whole, [span for spans in self.out for span in spans])

    @rule(asked=ASKED)
    def take(self, asked: Asked) -> None:
        try:
            self.out.append(allot(self.free, asked, PAGE))
        except PoolExhausted:
            return

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        del self.out[data.draw(st.integers(0, len(self.out) - 1))]

    @invariant()
    def nothing_overlaps_and_all_is_inside(self) -> None:
        taken = [page for spans in self.out for span in spans for page in _pages_of(span)]
        assert len(taken) == len(set(taken))
        assert set(taken) <= {span.start for span in self.whole}

    @invariant()
    def what_is_not_taken_is_free(self) -> None:
        taken = sum(span.size for spans in self.out for span in spans)
        assert usage(self.free).free + taken == sum(span.size for span in self.whole)

    def teardown(self) -> None:
        self.out.clear()
        assert joined(self.free) == joined(self.whole)


def _pages_of(span: Span) -> range:
    return range(span.start, span.end, PAGE)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=40, stateful_step_count=20)
