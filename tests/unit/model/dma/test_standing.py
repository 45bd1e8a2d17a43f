# SPDX-License-Identifier: Apache-2.0
"""Reservations that there are: what they leave for others, and by which name they go."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.unit.model.dma.offers import GIB, MIB, SMALL, region
from tests.unit.model.dma.test_allot import card, wish
from zoned.model.dma.allot import DmaState, Report, reports
from zoned.model.dma.device import Iommu
from zoned.model.dma.held import Held
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.offer import Offer, Span
from zoned.model.dma.rung import Rung
from zoned.model.dma.standing import fits, less_held
from zoned.model.dma.wish import DmaPolicy, Wish

WITH_REGION = dataclasses.replace(SMALL, regions=(region("dax0.0", GIB, 512 * MIB),))


def held(name: str = "w@0000:00:01.0", rung: Rung = Rung.LOWMEM, **more: Any) -> Held:
    """Return a reservation that stands."""
    fields = {"size": 256 * MIB, "mask": bits_mask(31), "standing": True, **more}
    return Held(name=name, rung=rung, **fields)


def seen(
    devices: list[Any], *wishes: Wish, has: list[Held] | None = None, offer: Offer = SMALL
) -> list[Report]:
    """Return how it stands with each, where these reservations are."""
    there = {each.name: each for each in has or []}
    return list(reports(devices, DmaPolicy(wishes=wishes), offer, held=there))


@pytest.mark.parametrize(
    ("one", "taken"),
    [
        (held(rung=Rung.LOWMEM), {"low": 256 * MIB}),
        (held(rung=Rung.CMA), {"cma": 256 * MIB}),
        (held(rung=Rung.DEVDAX, region="dax0.0"), {"dax0.0": 256 * MIB}),
        (
            held(rung=Rung.DEVDAX, region="dax0.0", spans=(Span(0, 2 * GIB), Span(3 * GIB, 1))),
            {"dax0.0": 2 * GIB + 1},
        ),
        (held(rung=Rung.BLOCKS, blocks=(3,)), {}),
        (held(rung=Rung.BLOCKS, blocks=(3,), devices=("a",)), {"low": 256 * MIB}),
        (held(rung=Rung.HUGETLB, blocks=(3,)), {}),
    ],
)
def test_what_is_left(one: Held, taken: dict[str, int]) -> None:
    left = less_held(SMALL, [one])
    assert left.taken == taken
    assert len(left.low_blocks) == len(SMALL.low_blocks) - len(one.blocks)


def test_sums_and_blocks_above() -> None:
    left = less_held(SMALL, [held("a"), held("b", blocks=(3, 4), above=(17,))])
    assert left.taken == {"low": 512 * MIB}
    assert {3, 4, 17}.isdisjoint(each.block.id for each in left.low_blocks)


def test_what_stands_is_told_and_leaves_less_for_others() -> None:
    mine, other = seen([card(1), card(2)], wish(size=256 * MIB), has=[held()])
    assert (mine.state, mine.rung, mine.reserved) == (DmaState.RESERVED, Rung.LOWMEM, 256 * MIB)
    assert (other.state, other.reserved) == (DmaState.POSSIBLE, 0)
    assert other.verdict is not None
    assert "256MiB are promised already" in other.verdict.why
    # For it itself the same memory is there once more.
    assert mine.verdict is not None
    assert "promised" not in mine.verdict.why


def test_what_two_cannot_have_the_one_has_that_has_it_already() -> None:
    wishes = (
        wish("first", size=400 * MIB, rungs=(Rung.DEVDAX,), priority=90),
        wish("late", "other", size=400 * MIB, rungs=(Rung.DEVDAX,)),
    )
    mine = held("late@0000:00:02.0", Rung.DEVDAX, size=400 * MIB, region="dax0.0")
    first, late = seen([card(1), card(2, "other")], *wishes, has=[mine], offer=WITH_REGION)
    assert (first.state, late.state) == (DmaState.IMPOSSIBLE, DmaState.RESERVED)


@pytest.mark.parametrize(
    "change",
    [{"size": MIB}, {"mask": bits_mask(32)}, {"rung": Rung.CMA}, {"standing": False}],
)
def test_what_is_not_as_wanted_does_not_count(change: dict[str, Any]) -> None:
    (found,) = seen([card(1)], wish(rungs=(Rung.LOWMEM,)), has=[held(**change)])
    assert (found.state, found.reserved) == (DmaState.POSSIBLE, 0)


def test_a_lower_limit_than_wanted_does() -> None:
    assert fits(held(mask=1), size=256 * MIB, mask=2, rungs=(Rung.LOWMEM,))


def test_names() -> None:
    wishes = wish("one"), wish("two", "other", pool="both"), wish("three", "third", pool="both")
    devices = [card(1), card(2), card(3, "other"), card(4, "third"), card(5, "nobody")]
    assert [each.name for each in seen(devices, *wishes)] == [
        "one@0000:00:01.0",
        "one@0000:00:02.0",
        "both",
        "both",
        "",
    ]


def test_one_device_has_what_is_held_without_any() -> None:
    spare = wish("spare", hold=True, limit=bits_mask(31))
    assert [each.name for each in seen([], spare)] == ["spare"]
    devices = [card(1), card(2)]
    assert [each.name for each in seen(devices, spare)] == ["spare", "spare@0000:00:02.0"]
    # The one that has it keeps it, also when another comes before it in line.
    mine = held("spare", devices=("0000:00:02.0",))
    names = [each.name for each in seen(devices, spare, has=[mine])]
    assert names == ["spare@0000:00:01.0", "spare"]
    waiting = held("spare")
    own = held("spare@0000:00:01.0")
    names = [each.name for each in seen(devices, spare, has=[waiting, own])]
    assert names == ["spare@0000:00:01.0", "spare"]
    owned = [held(f"spare@0000:00:0{number}.0") for number in (1, 2)]
    names = [each.name for each in seen(devices, spare, has=[waiting, *owned])]
    assert names == ["spare@0000:00:01.0", "spare@0000:00:02.0"]
    # One behind an IOMMU needs none.
    shielded = card(1, iommu=Iommu.TRANSLATED)
    names = [each.name for each in seen([shielded, card(2)], spare)]
    assert names == ["spare@0000:00:01.0", "spare"]


def test_what_is_refused_by_the_machine_tells_what_was_needed() -> None:
    (found,) = seen([card(1)], wish(size=8 * GIB))
    assert found.state is DmaState.REFUSED
    assert found.verdict is not None
    assert found.verdict.need is not None
    assert (found.verdict.need.size, found.verdict.need.mask) == (8 * GIB, bits_mask(31))


@pytest.mark.parametrize("first", [True, False])
def test_command_lines_do_not_overlap_where_less_is_held(*, first: bool) -> None:
    """What stands is too small by now, and more is to be had at the next boot only."""
    rungs = (Rung.LOWMEM, Rung.PENDING_REBOOT)
    more = wish(size=GIB + GIB // 4, rungs=rungs, priority=9 if first else 1)
    other = wish("x", "other", rungs=(Rung.PENDING_REBOOT,), priority=5)
    small = dataclasses.replace(SMALL, zones=())
    found = seen([card(1), card(2, "other")], more, other, has=[held()], offer=small)
    steps = [each.verdict.step for each in found if each.verdict is not None]
    spans = sorted(each.span for each in steps if each is not None and each.span is not None)
    assert len(spans) == 2
    assert spans[0].end < spans[1].start


def test_what_stands_keeps_nobody_from_the_next_boot() -> None:
    alone = wish("x", "other", rungs=(Rung.PENDING_REBOOT,))
    (without,) = seen([card(2, "other")], alone)
    mine = wish(rungs=(Rung.LOWMEM, Rung.PENDING_REBOOT), priority=9)
    small = dataclasses.replace(SMALL, zones=())
    there, other = seen([card(1), card(2, "other")], mine, alone, has=[held()], offer=small)
    assert there.state is DmaState.RESERVED
    assert other.verdict == without.verdict
