# SPDX-License-Identifier: Apache-2.0
"""Who lacks memory blocks, and which belong back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zoned.engine.blocks.needs import blocks_of, find_needs
from zoned.model.block import PARKED, RETURNING, HeldBlock, zone_owner
from zoned.model.topology import Block, BlockState
from zoned.model.zone import Backing, Zone, ZoneSpec

SIZE = 128 << 20
BLOCKS = [
    Block(id=number, start=number * SIZE, size=SIZE, state=BlockState.ONLINE, node=number // 8)
    for number in range(16)
]


def zone(
    name: str,
    shares: dict[int, int],
    leaving: dict[int, int] | None = None,
    backing: str = "blocks",
) -> Zone:
    size = sum(shares.values()) * SIZE
    return Zone(
        spec=ZoneSpec(name=name, size=size, backing=Backing(backing)),
        shares={node: count * SIZE for node, count in shares.items()},
        leaving={node: count * SIZE for node, count in (leaving or {}).items()},
        cpus=None,
    )


def hold(owner: str, *numbers: int) -> dict[int, HeldBlock]:
    return {each: HeldBlock(number=each, owner=owner, former="Normal") for each in numbers}


DB = zone_owner("db")


def test_what_is_as_it_should_be_needs_nothing() -> None:
    held = hold(DB, 1, 2) | hold(PARKED, 9)
    needs = find_needs([zone("db", {0: 2})], held, BLOCKS, SIZE, {1: SIZE})
    assert (needs.short, needs.parked, needs.back) == ({}, {}, ())


@pytest.mark.parametrize("backing", ["limit", "reserve", "node"])
def test_other_backings_hold_no_blocks(backing: str) -> None:
    assert blocks_of(zone("db", {0: 2}, backing=backing), SIZE) == {}


def test_a_share_that_is_no_whole_number_takes_one_more() -> None:
    odd = Zone(
        spec=ZoneSpec(name="db", size=SIZE + 1, backing=Backing.BLOCKS),
        shares={0: SIZE + 1},
        cpus=None,
    )
    assert blocks_of(odd, SIZE) == {0: 2}


def test_a_zone_that_lacks_some() -> None:
    needs = find_needs([zone("db", {0: 2, 1: 1})], hold(DB, 1), BLOCKS, SIZE, {})
    assert needs.short == {"db": {0: 1, 1: 1}}
    assert needs.back == ()


def test_a_zone_that_has_too_many_gives_the_last_back() -> None:
    needs = find_needs([zone("db", {0: 1})], hold(DB, 3, 1, 2, 9), BLOCKS, SIZE, {})
    assert needs.short == {}
    assert {each.number for each in needs.back} == {1, 2, 9}


def test_a_zone_on_its_way_keeps_both() -> None:
    moving = zone("db", {1: 2}, leaving={0: 2})
    needs = find_needs([moving], hold(DB, 1, 2, 8, 9), BLOCKS, SIZE, {})
    assert (needs.short, needs.back) == ({}, ())


@pytest.mark.parametrize("owner", [zone_owner("gone"), RETURNING, "parking:1f"])
def test_what_nobody_wants_goes_back(owner: str) -> None:
    held = hold(owner, 4) | hold(PARKED, 5)
    needs = find_needs([zone("db", {})], held, BLOCKS, SIZE, {})
    assert [each.number for each in needs.back] == [4]


def test_a_block_that_left_the_machine_is_nobodys() -> None:
    assert find_needs([], hold(RETURNING, 99), BLOCKS, SIZE, {}).back == ()


def test_a_pool_that_lacks_some() -> None:
    wanted = {0: 2 * SIZE, 1: SIZE + 1}
    assert find_needs([], hold(PARKED, 1), BLOCKS, SIZE, wanted).parked == {0: 1, 1: 2}
    assert find_needs([], hold(PARKED, 1, 2, 3, 8, 9), BLOCKS, SIZE, wanted).parked == {}


@pytest.mark.parametrize("owner", [DB, zone_owner("gone"), RETURNING])
def test_what_comes_back_to_the_pool_does_not_lack(owner: str) -> None:
    lent = {each: replace(block, home=PARKED) for each, block in hold(owner, 1, 8).items()}
    held = hold(DB, 2) | hold(PARKED, 3) | lent
    wanted = {0: 3 * SIZE, 1: SIZE}
    assert find_needs([zone("db", {0: 2, 1: 1})], held, BLOCKS, SIZE, wanted).parked == {0: 1}


def test_what_a_reservation_holds_is_left_to_it() -> None:
    held = hold("dma:scsi", 1, 2) | hold("dma:gone", 3)
    needs = find_needs([], held, BLOCKS, SIZE, {}, {"scsi": None})
    assert [each.number for each in needs.back] == [3]
