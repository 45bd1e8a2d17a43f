# SPDX-License-Identifier: Apache-2.0
"""What should stand, and what is to be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.model.dma.offers import GIB, MIB, SMALL
from tests.unit.model.dma.test_allot import card, wish
from tests.unit.model.dma.test_standing import WITH_REGION, held, seen
from zoned.engine.dma.wanted import What, to_do, unmet, wanted
from zoned.model.dma.allot import reports
from zoned.model.dma.device import Iommu
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.match import Match
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import DmaPolicy, Quirk

if TYPE_CHECKING:
    from zoned.model.dma.held import Held

ONE = "w@0000:00:01.0"


def done(*has: Held, **more: Any) -> dict[str, What]:
    """Return what is to be done for one card."""
    found = seen([card(1)], wish(**more), has=list(has))
    return to_do(found, {each.name: each for each in has})


def test_what_is_wanted_is_told_with_its_devices_and_limit() -> None:
    pool: dict[str, Any] = {"pool": "both", "rungs": (Rung.LOWMEM,)}
    wishes = wish("a", size=GIB, **pool), wish("b", "other", size=GIB, **pool)
    devices = [card(1), card(2, "other", bits=30, node=1), card(3, iommu=Iommu.TRANSLATED)]
    (found,) = wanted(seen(devices, *wishes)).values()
    assert (found.name, found.wish.name) == ("both", "a")
    assert found.devices == ("0000:00:01.0", "0000:00:02.0", "0000:00:03.0")
    assert (found.need.size, found.need.mask, found.need.node) == (GIB, bits_mask(30), None)


def test_the_more_important_come_first() -> None:
    wishes = wish("low", priority=1), wish("high", "other", priority=99)
    found = wanted(seen([card(1), card(2, "other")], *wishes))
    assert list(found) == ["high@0000:00:02.0", "low@0000:00:01.0"]


def test_nothing_is_wanted_of_one_that_needs_nothing() -> None:
    found = seen([card(1, iommu=Iommu.TRANSLATED), card(2, mask_bits=None), card(3, "x")], wish())
    assert wanted(found) == {}
    assert [each.name for each in unmet(found, {})] == ["w@0000:00:02.0"]


@pytest.mark.parametrize(
    ("has", "what"),
    [
        ([], {ONE: What.SET_UP}),
        ([held(devices=("0000:00:01.0",))], {}),
        ([held(standing=False)], {ONE: What.SET_UP}),
        ([held(size=MIB)], {ONE: What.SET_UP}),
        ([held()], {ONE: What.REPAIR}),
        (
            [held("old"), held(devices=("0000:00:01.0",))],
            {"old": What.TAKE_DOWN},
        ),
        ([held("old", standing=False)], {"old": What.TAKE_DOWN, ONE: What.SET_UP}),
    ],
)
def test_what_is_to_be_done(has: list[Held], what: dict[str, What]) -> None:
    assert done(*has) == what
    assert list(done(*has)) == list(what)


def test_what_cannot_be_had_is_not_tried_and_what_stands_stays() -> None:
    only: dict[str, Any] = {"rungs": (Rung.DEVDAX,)}
    assert done(**only) == {}
    assert done(held(), **only) == {}
    # One that was cut off is taken down in any case.
    assert done(held(standing=False), **only) == {ONE: What.SET_UP}
    (found,) = seen([card(1)], wish(**only))
    assert list(unmet([found], {})) == [found]


def test_one_between_two_drivers_keeps_what_it_has() -> None:
    found = seen([card(1, mask_bits=None)], wish(), has=[held()])
    mine = {ONE: held()}
    assert to_do(found, mine) == {}
    assert list(unmet(found, mine)) == []
    assert to_do(found, {ONE: held(standing=False)}) == {ONE: What.TAKE_DOWN}


def test_of_a_pool_one_word_is_said() -> None:
    wishes = wish("a", size=9 * GIB, pool="p"), wish("b", "other", size=9 * GIB, pool="p")
    found = seen([card(1), card(2, "other")], *wishes)
    assert [each.name for each in unmet(found, {})] == ["p"]


def test_each_device_is_named_of_which_two_things_are_said() -> None:
    quirks = tuple(
        Quirk(match=Match(driver=("short",)), limit=bits_mask(bits), place=f"f:{bits}")
        for bits in (30, 31)
    )
    found = reports([card(1), card(2)], DmaPolicy(quirks=quirks), SMALL)
    assert [each.device for each in unmet(found, {})] == [card(1), card(2)]
    assert wanted(found) == {}


def test_with_other_memory_nothing_is_to_be_done() -> None:
    mine = held(
        rung=Rung.DEVDAX, size=MIB, region="dax0.0", devices=("0000:00:01.0",), mask=bits_mask(30)
    )
    found = seen([card(1)], wish(size=MIB), has=[mine], offer=WITH_REGION)
    assert to_do(found, {ONE: mine}) == {}
