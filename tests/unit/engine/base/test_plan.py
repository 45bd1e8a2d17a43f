# SPDX-License-Identifier: Apache-2.0
"""What becomes of the blocks of a base zone that comes, and whether one may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.engine.base.plan import (
    kernel_share,
    leaving_order,
    leaving_refused,
    plan_online,
    refuse_fixed,
    too_much_kernel,
)
from zoned.errors import NotRemovable
from zoned.model.base import BaseSource, BaseZone
from zoned.model.block import PARKED, BlockWord, HeldBlock
from zoned.model.topology import Block, BlockState
from zoned.model.zone import Zone, ZoneSpec

SIZE = 128 << 20
KERNEL, MOVABLE = BlockWord.KERNEL, BlockWord.MOVABLE
BOTH = ("Normal", "Movable")


def block(number: int, *zones: str, online: bool = False) -> Block:
    return Block(
        id=number,
        start=number * SIZE,
        size=SIZE,
        state=BlockState.ONLINE if online else BlockState.OFFLINE,
        zones=zones or BOTH,
        node=4,
    )


def base_zone(text: str, source: BaseSource = BaseSource.DIMM, node: int = 4) -> BaseZone:
    """Return a base zone whose blocks are of the kernel (K), movable (M) or offline (-)."""
    kinds = {"K": "Normal", "M": "Movable"}
    blocks = tuple(
        block(number, kinds[letter], online=True) if letter in kinds else block(number)
        for number, letter in enumerate(text)
    )
    return BaseZone(node=node, blocks=blocks, sources={source: len(blocks)} if blocks else {})


def planned(text: str, ratio: float = 3.0) -> str:
    """Return the blocks as they are once the plan was carried out."""
    letters = list(text)
    for number, word in plan_online(base_zone(text), ratio=ratio):
        assert letters[number] == "-"
        letters[number] = "K" if word is KERNEL else "M"
    return "".join(letters)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("-", "K"),
        ("--", "KM"),
        ("----", "KMMM"),
        ("-----", "KKMMM"),
        ("--------", "KKMMMMMM"),
        ("KMM-", "KMMM"),
        ("KMMM-", "KMMMK"),
        ("KKKK--", "KKKKMM"),
        ("MMMM----", "MMMMKKMM"),
        ("KM", "KM"),
    ],
)
def test_first_blocks_are_the_kernels(before: str, after: str) -> None:
    assert planned(before) == after


@pytest.mark.parametrize(("ratio", "after"), [(1.0, "KKMM"), (100.0, "KMMM"), (0.1, "KKKK")])
def test_ratio_of_the_policy(ratio: float, after: str) -> None:
    assert planned("----", ratio) == after


@given(st.text("KM-", max_size=40), st.floats(0.1, 100))
def test_ratio_is_kept_as_far_as_new_blocks_can(text: str, ratio: float) -> None:
    after = planned(text, ratio)
    had, new = text.count("K"), text.count("-")
    assert "-" not in after
    assert after.count("K") == min(had + new, max(had, kernel_share(len(text), ratio)))


def test_held_blocks_stay_and_count_for_nothing() -> None:
    assert plan_online(base_zone("--------"), held={0, 1, 2, 3}) == [
        (4, KERNEL),
        (5, MOVABLE),
        (6, MOVABLE),
        (7, MOVABLE),
    ]


def test_block_that_can_be_of_one_kind_only() -> None:
    blocks = (block(0, "Movable"), block(1, "Normal"), block(2), block(3, "Normal"))
    steps = plan_online(BaseZone(node=4, blocks=blocks))
    assert steps == [(0, MOVABLE), (1, KERNEL), (2, MOVABLE), (3, KERNEL)]


def test_what_is_meant_to_be_movable_counts_for_nothing() -> None:
    every = range(8)
    assert plan_online(base_zone("----"), movable=every) == [(n, MOVABLE) for n in range(4)]
    assert plan_online(base_zone("KMMM----"), movable=every) == [(n, MOVABLE) for n in range(4, 8)]
    rest = plan_online(base_zone("--------"), movable={0, 1, 2, 3})
    assert [word for _, word in rest] == [MOVABLE] * 4 + [KERNEL] + [MOVABLE] * 3
    assert [each.id for each in too_much_kernel(base_zone("KMKM"), movable=every)] == [2, 0]
    assert [each.id for each in too_much_kernel(base_zone("KMKM"), movable={0})] == [0]
    assert [each.id for each in too_much_kernel(base_zone("KK"), held={1}, movable=every)] == [0]
    most = {2, 3, 4, 5, 6, 7}
    assert [each.id for each in too_much_kernel(base_zone("KKMMMMMM"), movable=most)] == [1]
    start = base_zone("KKKK", BaseSource.BOOT)
    assert [each.id for each in too_much_kernel(start, movable={2})] == [2]


def numbers(text: str, source: BaseSource = BaseSource.DIMM) -> list[int]:
    return [each.id for each in too_much_kernel(base_zone(text, source))]


def test_what_somebody_else_brought_online_as_the_kernels() -> None:
    assert numbers("KKKK") == [3, 2, 1]
    assert numbers("KMMM") == []
    assert numbers("KKMM") == [1]
    assert numbers("K") == []
    assert numbers("KKK-") == [2, 1]
    assert [each.id for each in too_much_kernel(base_zone("KKKK"), held={3})] == [2, 1]


@pytest.mark.parametrize("source", [BaseSource.BOOT, BaseSource.UNKNOWN])
def test_memory_of_the_start_is_as_it_should_be(source: BaseSource) -> None:
    assert numbers("KKKK", source) == []


def zone(name: str, *nodes: int, leaving: tuple[int, ...] = ()) -> Zone:
    return Zone(
        spec=ZoneSpec(name=name, size=SIZE),
        shares=dict.fromkeys(nodes, SIZE),
        cpus=None,
        leaving=dict.fromkeys(leaving, 0),
    )


def test_zones_are_named() -> None:
    zones = [zone("web", 4), zone("db", 3, leaving=(4,)), zone("far", 0)]
    found = leaving_refused(4, zones, [], {})
    assert found is not None
    assert found.message == "node 4 is in use by zone db, web"
    assert "zonectl move db" in found.hint
    assert leaving_refused(2, zones, [0, 1], {}) is None


def test_parked_blocks_are_named() -> None:
    held = {
        number: HeldBlock(number=number, owner=owner, former="Normal")
        for number, owner in ((1, PARKED), (2, PARKED), (3, "changing"), (9, PARKED))
    }
    found = leaving_refused(4, [], [0, 1, 2, 3], held)
    assert found is not None
    assert found.message == "memory blocks 1-2 of node 4 are parked"
    assert leaving_refused(4, [], [0, 3], held) is None


def test_what_is_held_for_devices_is_named() -> None:
    held = {
        number: HeldBlock(number=number, owner=owner, former="Normal")
        for number, owner in ((1, "dma:scsi"), (2, "dma:scsi"), (3, "dma:edu@0000:00:01.0"))
    }
    found = leaving_refused(4, [], [0, 1, 2], held)
    assert found is not None
    assert found.message == "memory blocks 1-2 of node 4 are held for reservation scsi"
    assert found.hint == "zonectl dma release scsi"
    found = leaving_refused(4, [], [1, 3], held)
    assert found is not None
    assert "reservation edu@0000:00:01.0, scsi" in found.message


def test_what_the_machine_started_with_stays() -> None:
    start, more = base_zone("KK", BaseSource.BOOT, node=0), base_zone("KM")
    with pytest.raises(NotRemovable, match="started with the memory of node 0"):
        refuse_fixed(start, [start, more])
    refuse_fixed(more, [start, more])
    with pytest.raises(NotRemovable, match="all the memory that the kernel can use"):
        refuse_fixed(more, [base_zone("MM", node=0), more])


def test_kernels_blocks_go_last() -> None:
    assert [each.id for each in leaving_order(base_zone("KMKM").blocks)] == [3, 1, 2, 0]
