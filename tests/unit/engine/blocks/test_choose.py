# SPDX-License-Identifier: Apache-2.0
"""Which blocks may be taken: movable ones first, and never too many of the kernel's."""

from __future__ import annotations

import pytest

from zoned.engine.blocks.choose import Reach, choose
from zoned.errors import TooFewBlocks
from zoned.model.block import PARKED, RETURNING, HeldBlock, Outlook
from zoned.model.topology import Block, BlockState

SIZE = 128 << 20
ONLINE, OFFLINE = BlockState.ONLINE, BlockState.OFFLINE


def look(
    number: int,
    zone: str = "Normal",
    *,
    can: bool = True,
    node: int = 2,
    state: BlockState = ONLINE,
) -> Outlook:
    block = Block(id=number, start=number * SIZE, size=SIZE, state=state, zones=(zone,), node=node)
    return Outlook(block=block, can=can, why="" if can else "4KiB slab cannot move")


def chosen(
    outlooks: list[Outlook],
    count: int,
    held: dict[int, HeldBlock] | None = None,
    *,
    ratio: float = 3.0,
    node: int = 2,
    reach: Reach | None = None,
) -> tuple[list[int], int]:
    found = choose(node, count, outlooks, held or {}, ratio, reach)
    return [block.id for block in found.candidates], found.kernel_blocks


def hold(owner: str, *numbers: int) -> dict[int, HeldBlock]:
    return {each: HeldBlock(number=each, owner=owner, former="Normal") for each in numbers}


def test_movable_first_then_high_addresses() -> None:
    outlooks = [look(1), look(2, "Movable"), look(3), look(4, can=False)]
    assert chosen(outlooks, 1)[0] == [2, 3, 1]


def test_other_nodes_do_not_count() -> None:
    assert chosen([look(1), look(2), look(9, node=3)], 1)[0] == [2, 1]


@pytest.mark.parametrize(
    ("kernel", "movable", "away", "ratio", "allowed"),
    [
        (8, 0, 0, 3.0, 6),
        (4, 0, 0, 3.0, 3),
        (4, 4, 0, 3.0, 2),
        (2, 6, 0, 3.0, 0),
        (8, 0, 4, 3.0, 5),
        (8, 0, 0, 1.0, 4),
        (8, 0, 0, 100.0, 7),
        (1, 0, 0, 100.0, 0),
    ],
)
def test_the_kernel_keeps_its_part(
    kernel: int, movable: int, away: int, ratio: float, allowed: int
) -> None:
    outlooks = [
        *(look(number) for number in range(kernel)),
        *(look(10 + number, "Movable") for number in range(movable)),
        *(look(20 + number, state=OFFLINE, can=False) for number in range(away)),
    ]
    held = hold(PARKED, *range(20, 20 + away))
    assert chosen(outlooks, 0, held, ratio=ratio)[1] == allowed
    with pytest.raises(TooFewBlocks, match=f"{movable + allowed} of {movable + allowed + 1} "):
        chosen(outlooks, movable + allowed + 1, held, ratio=ratio)


def test_low_memory_of_the_first_node_stays() -> None:
    outlooks = [look(number, "DMA32", node=0) for number in range(8)]
    with pytest.raises(TooFewBlocks, match=r"0 of 1 .*8 low memory"):
        chosen(outlooks, 1, node=0)
    elsewhere = [look(number, "DMA32", node=1) for number in range(8)]
    assert len(chosen(elsewhere, 1, node=1)[0]) == 8


def test_what_is_held_is_not_taken_but_what_returns_is() -> None:
    outlooks = [look(number, "Movable") for number in range(3)]
    held = hold("zone:db", 1) | hold(RETURNING, 2)
    assert chosen(outlooks, 2, held)[0] == [2, 0]


def test_the_refusal_tells_why() -> None:
    outlooks = [look(1, can=False), look(2), look(3)]
    with pytest.raises(TooFewBlocks) as error:
        chosen(outlooks, 3)
    told = error.value.message
    assert "node 2 can give 2 of 3 memory blocks" in told
    assert "1 cannot go offline (4KiB slab cannot move)" in told
    assert "at movable:kernel 3:1" in told


class TestForDevices:
    """Low memory may go where it is for a device, but for the edges of its zone."""

    NODE_0 = (look(0, "none", node=0, can=False), *(look(n, "DMA32", node=0) for n in range(1, 8)))
    BELOW_512 = Reach(end=4 * SIZE, low=True)

    def test_what_the_device_reaches_from_the_top(self) -> None:
        assert chosen([*self.NODE_0], 3, node=0, reach=self.BELOW_512) == ([3, 2, 1], 6)

    def test_a_block_that_is_not_all_within_reach(self) -> None:
        reach = Reach(end=4 * SIZE - 1, low=True)
        assert chosen([*self.NODE_0], 2, node=0, reach=reach)[0] == [2, 1]

    def test_the_last_block_of_a_zone_stays(self) -> None:
        reach = Reach(end=1 << 32, low=True)
        assert chosen([*self.NODE_0], 6, node=0, reach=reach)[0] == [6, 5, 4, 3, 2, 1]
        with pytest.raises(TooFewBlocks, match="1 at the edge of a low zone"):
            chosen([*self.NODE_0], 7, node=0, reach=reach)

    def test_both_ends_of_a_zone_stay_where_nothing_shares_it(self) -> None:
        outlooks = [look(number, "DMA32", node=1) for number in range(8, 16)]
        reach = Reach(end=1 << 32, low=True)
        assert chosen(outlooks, 1, node=1, reach=reach)[0] == [14, 13, 12, 11, 10, 9]

    def test_what_has_gone_already_is_no_edge(self) -> None:
        held = hold("dma:scsi", 6, 7)
        gone = [look(number, "DMA32", node=0, state=OFFLINE) for number in (6, 7)]
        reach = Reach(end=1 << 32, low=True)
        found = chosen([*self.NODE_0[:6], *gone], 1, held, node=0, reach=reach)
        assert found[0] == [4, 3, 2, 1]

    def test_from_an_address_on(self) -> None:
        reach = Reach(start=2 * SIZE, end=1 << 32, low=True)
        assert chosen([*self.NODE_0], 0, node=0, reach=reach)[0] == [6, 5, 4, 3, 2]

    def test_other_memory_where_it_need_not_be_the_kernels_low_one(self) -> None:
        outlooks = [look(1, "Movable"), look(2), look(3), look(9)]
        assert chosen(outlooks, 1, reach=Reach(end=4 * SIZE, low=False))[0] == [1, 3, 2]
        with pytest.raises(TooFewBlocks, match="4 not where the device reaches"):
            chosen(outlooks, 1, reach=self.BELOW_512)

    def test_those_that_may_not_go_come_last(self) -> None:
        doubtful = Outlook(block=self.NODE_0[3].block, can=None, why="its pages cannot be seen")
        outlooks = [*self.NODE_0[:3], doubtful, *self.NODE_0[4:]]
        assert chosen(outlooks, 1, node=0, reach=self.BELOW_512)[0] == [2, 1, 3]

    def test_a_refusal_names_the_reservation(self) -> None:
        outlooks = [look(number, "Movable") for number in range(3)]
        with pytest.raises(TooFewBlocks, match=r"2 offline or held already \(some for .* scsi\)"):
            chosen(outlooks, 2, hold("dma:scsi", 0, 1))
