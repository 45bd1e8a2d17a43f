# SPDX-License-Identifier: Apache-2.0
"""Which blocks are tried first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zoned.engine.blocks.outlook import rank
from zoned.model.block import BlockPages, Outlook
from zoned.model.topology import Block, BlockState


def made(
    number: int,
    *,
    zone: str = "Normal",
    can: bool | None = True,
    movable: int | None = 0,
    huge: int = 0,
) -> Outlook:
    pages = None if movable is None else BlockPages(total=100, movable=movable, huge=huge)
    block = Block(
        id=number, start=number << 27, size=1 << 27, state=BlockState.ONLINE, zones=(zone,)
    )
    return Outlook(block=block, can=can, pages=pages)


def order(*outlooks: Outlook) -> list[int]:
    return [each.block.id for each in rank(outlooks)]


def test_movable_memory_first() -> None:
    assert order(made(9), made(2, zone="Movable", movable=90), made(8)) == [2, 9, 8]


def test_then_the_fewest_pages_to_move() -> None:
    assert order(made(9, movable=5), made(1, movable=1, huge=9), made(7, movable=4)) == [7, 9, 1]


def test_what_may_not_move_counts_too() -> None:
    doubtful = Outlook(
        block=made(8).block, can=None, pages=BlockPages(total=100, unmovable={"plain": 5})
    )
    assert order(doubtful, made(2, can=None, movable=4), made(1, movable=50)) == [1, 2, 8]


def test_then_high_addresses() -> None:
    assert order(made(1), made(3), made(2)) == [3, 2, 1]


def test_what_cannot_go_is_left_out_and_what_is_unknown_comes_last() -> None:
    unknown = made(9, zone="Movable", can=None, movable=None)
    assert order(made(4, can=False), unknown, made(1, movable=50)) == [1, 9]


def test_ballooned_blocks_come_before_those_never_looked_at() -> None:
    assert order(made(9, can=None, movable=None), made(1, can=None, movable=50)) == [1, 9]


@given(st.permutations(range(6)))
def test_the_order_does_not_depend_on_that_of_the_blocks(numbers: list[int]) -> None:
    every = [made(number, movable=number % 3) for number in numbers]
    assert order(*every) == [3, 0, 4, 1, 5, 2]
