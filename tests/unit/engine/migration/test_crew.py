# SPDX-License-Identifier: Apache-2.0
"""Several threads, one list."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from zoned.engine.migration.crew import work_off

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_item_is_done_once(threads: int) -> None:
    done: list[int] = []
    work_off(iter(range(500)), done.append, threads)
    assert sorted(done) == list(range(500))


def test_they_work_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def step(_: int) -> None:
        together.wait(20)

    work_off(range(3), step, 3)


def test_the_list_goes_on_while_others_work_but_not_far_ahead() -> None:
    asked, three = list[int](), threading.Event()

    def items() -> Iterator[int]:
        for item in range(50):
            asked.append(item)
            if item == 3:
                three.set()
            yield item

    def step(item: int) -> None:
        if item == 0:
            assert three.wait(20)
        assert len(asked) <= item + 5

    work_off(items(), step, 1)
    assert len(asked) == 50


def test_the_first_exception_ends_all_and_is_raised() -> None:
    together = threading.Barrier(2)
    done: list[int] = []

    def step(item: int) -> None:
        if item < 2:
            together.wait(20)
        if item == 1:
            raise ValueError("the second")
        done.append(item)

    items = iter(range(1_000_000))
    with pytest.raises(ValueError, match="the second"):
        work_off(items, step, 2)
    assert next(items) < 1_000_000 - 1
    assert 1 not in done


def test_what_was_listed_ahead_of_an_exception_is_left() -> None:
    ahead, done = threading.Event(), list[int]()

    def items() -> Iterator[int]:
        yield from (0, 1)
        ahead.set()
        yield 2

    def step(item: int) -> None:
        assert ahead.wait(20)
        done.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        work_off(items(), step, 1)
    assert done == [0]


def test_a_list_that_cannot_be_made_ends_it_too() -> None:
    done: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        raise KeyError("the list")

    with pytest.raises(KeyError, match="the list"):
        work_off(items(), done.append, 3)
    assert done == [1]


def test_what_is_no_exception_of_ours_ends_it_as_well() -> None:
    def step(_: int) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        work_off(range(10), step, 2)
