# SPDX-License-Identifier: Apache-2.0
"""All devices together: who gets what, and what is refused of whom."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.model.dma.offers import GIB, MIB, SMALL, region
from zoned.model.dma.allot import DmaState, Report, Verdict, anything_wanted, reach, reports
from zoned.model.dma.device import Bus, Device, Iommu
from zoned.model.dma.limit import Limit, LimitSource, bits_mask
from zoned.model.dma.match import Match
from zoned.model.dma.offer import KernelZone
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import DmaPolicy, Quirk, Wish

if TYPE_CHECKING:
    from zoned.model.dma.offer import Offer

ONE_REGION = dataclasses.replace(SMALL, regions=(region("dax0.0", GIB, 512 * MIB),))
ONLY_DEVDAX = (Rung.DEVDAX,)


def card(number: int, driver: str = "short", *, bits: int = 31, **more: Any) -> Device:
    """Return a device whose driver told its masks."""
    address = f"0000:00:{number:02x}.0"
    fields = {"driver": driver, "mask_bits": 32, "coherent_bits": bits, **more}
    return Device(bus=Bus.PCI, address=address, path=f"/devices/pci0000:00/{address}", **fields)


def wish(name: str = "w", driver: str = "short", size: int = 256 * MIB, **more: Any) -> Wish:
    """Return a wish for the devices of a driver."""
    return Wish(name=name, match=Match(driver=(driver,)), size=size, place=f"f:{name}", **more)


def judged(devices: list[Device], *wishes: Wish, offer: Offer = SMALL) -> list[Report]:
    """Return how it stands with each."""
    return list(reports(devices, DmaPolicy(wishes=wishes), offer))


def verdicts(found: list[Report]) -> list[Verdict]:
    """Return the verdicts, of which none may be missing."""
    assert all(each.verdict is not None for each in found)
    return [each.verdict for each in found if each.verdict is not None]


def test_nothing_wanted() -> None:
    (found,) = judged([card(1)])
    assert found == Report(
        device=card(1), limit=Limit(mask=bits_mask(31), source=LimitSource.DRIVER, place="short")
    )
    assert (found.state, found.rung, found.reserved) == (None, None, 0)


def test_one_device() -> None:
    (found,) = judged([card(1)], wish())
    assert (found.state, found.rung) == (DmaState.POSSIBLE, Rung.LOWMEM)
    (verdict,) = verdicts([found])
    assert [each.rung for each in verdict.steps] == list(Rung)
    assert verdict.why == "2GiB of DMA32 are free, of which 1GiB may lie above the limit"


def test_what_is_reserved_counts_before_what_could_be() -> None:
    (found,) = judged([card(1)], wish())
    held = dataclasses.replace(found, reserved=256 * MIB, holding=Rung.BLOCKS)
    assert (held.state, held.rung) == (DmaState.RESERVED, Rung.BLOCKS)


def test_behind_an_iommu_nothing_is_needed_and_the_limit_need_not_be_known() -> None:
    device = card(1, mask_bits=None, iommu=Iommu.TRANSLATED)
    (found,) = judged([device], wish())
    assert (found.limit.mask, found.state, found.rung) == (None, DmaState.SATISFIED, Rung.IOMMU)
    (insisting,) = judged([device], wish(rungs=ONLY_DEVDAX, limit=bits_mask(31)), offer=ONE_REGION)
    assert (insisting.state, insisting.rung) == (DmaState.POSSIBLE, Rung.DEVDAX)


def test_who_reaches_all_memory_needs_nothing() -> None:
    (found,) = judged([card(1, bits=64, mask_bits=64)], wish())
    assert (found.state, found.rung) == (DmaState.SATISFIED, None)
    (short,) = judged([card(1, mask_bits=33, bits=33)], wish())
    assert short.state is DmaState.POSSIBLE
    (insisting,) = judged([card(1, bits=64, mask_bits=64)], wish(rungs=ONLY_DEVDAX))
    assert insisting.state is DmaState.IMPOSSIBLE


def test_memory_that_was_plugged_in_counts_as_memory_to_reach() -> None:
    device = card(1, bits=36, mask_bits=36)
    assert judged([device], wish())[0].state is DmaState.SATISFIED
    plugged = KernelZone(node=1, name="Movable", start=1 << 37, spanned=GIB, present=GIB)
    offer = dataclasses.replace(SMALL, zones=(*(SMALL.zones or ()), plugged))
    assert judged([device], wish(), offer=offer)[0].state is DmaState.POSSIBLE


def test_unknown_stays_unknown() -> None:
    (found,) = judged([card(1, mask_bits=None)], wish())
    (verdict,) = verdicts([found])
    assert (verdict.state, verdict.code) == (DmaState.REFUSED, "limit-unknown")
    assert verdict.why.startswith("nobody knows how far 0000:00:01.0 reaches: ")
    (told,) = judged([card(1, mask_bits=None)], wish(limit=bits_mask(31)))
    assert told.state is DmaState.POSSIBLE


@pytest.mark.parametrize(
    ("device", "policy", "both"),
    [(31, None, 31), (None, 30, 30), (31, 30, 30), (28, 30, 28), (None, None, None)],
)
def test_the_lower_limit_counts(device: int | None, policy: int | None, both: int | None) -> None:
    limit = Limit(mask=None if device is None else bits_mask(device))
    asked = wish(limit=None if policy is None else bits_mask(policy))
    assert reach(limit, asked) == (None if both is None else bits_mask(both))


def test_a_contradiction_is_refused_and_harms_nobody_else() -> None:
    quirks = tuple(
        Quirk(match=Match(driver=("short",)), limit=bits_mask(bits), place=f"f:{bits}")
        for bits in (30, 31)
    )
    policy = DmaPolicy(quirks=quirks, wishes=(wish(), wish("o", "other")))
    first, second = reports([card(1), card(2, "other")], policy, SMALL)
    assert first.verdict is not None
    assert (first.state, first.verdict.code) == (DmaState.REFUSED, "dma-contradiction")
    assert "f:30 and f:31" in first.verdict.why
    assert first.limit.mask is None
    assert second.state is DmaState.POSSIBLE


def test_a_contradiction_shows_also_where_nothing_is_wanted() -> None:
    quirks = tuple(
        Quirk(match=Match(driver=("short",)), limit=limit, place="f") for limit in (1, 2)
    )
    (found,) = reports([card(1)], DmaPolicy(quirks=quirks), SMALL)
    assert found.state is DmaState.REFUSED


def test_wishes_that_contradict() -> None:
    (found,) = judged([card(1)], wish("a"), wish("b"))
    (verdict,) = verdicts([found])
    assert (verdict.code, found.wish) == ("dma-contradiction", None)


def test_sizes_that_make_no_sense() -> None:
    first, second = verdicts(
        judged([card(1), card(2, "other", bits=12)], wish(size=4 * GIB), wish("o", "other"))
    )
    assert (first.state, first.code) == (DmaState.REFUSED, "too-little-below")
    assert first.hint == "ask for less"
    assert second.code == "limit-too-low"


def test_each_device_gets_its_own() -> None:
    found = judged([card(1), card(2), card(3)], wish(rungs=ONLY_DEVDAX), offer=ONE_REGION)
    assert [each.state for each in found] == [
        DmaState.POSSIBLE,
        DmaState.POSSIBLE,
        DmaState.IMPOSSIBLE,
    ]


def test_a_pool_is_shared_and_lies_below_the_lowest_limit() -> None:
    pool: dict[str, Any] = {"size": 512 * MIB, "pool": "low", "rungs": ONLY_DEVDAX}
    wishes = wish("a", **pool), wish("b", "other", **pool)
    found = judged([card(1), card(2), card(3, "other")], *wishes, offer=ONE_REGION)
    assert {each.state for each in found} == {DmaState.POSSIBLE}
    lower = judged([card(1), card(2), card(3, "other", bits=30)], *wishes, offer=ONE_REGION)
    assert {each.state for each in lower} == {DmaState.IMPOSSIBLE}


def test_of_a_pool_those_behind_an_iommu_need_nothing() -> None:
    behind = card(1, iommu=Iommu.TRANSLATED)
    found = judged([behind, card(2)], wish(pool="low"))
    assert [each.state for each in found] == [DmaState.SATISFIED, DmaState.POSSIBLE]


def test_priority_decides_who_comes_first() -> None:
    low = wish("a", size=512 * MIB, rungs=ONLY_DEVDAX)
    high = wish("b", "other", size=512 * MIB, rungs=ONLY_DEVDAX, priority=51)
    found = judged([card(1), card(2, "other")], low, high, offer=ONE_REGION)
    assert [each.state for each in found] == [DmaState.IMPOSSIBLE, DmaState.POSSIBLE]
    equal = dataclasses.replace(high, priority=50)
    found = judged([card(1), card(2, "other")], low, equal, offer=ONE_REGION)
    assert [each.state for each in found] == [DmaState.POSSIBLE, DmaState.IMPOSSIBLE]
    found = judged([card(1), card(2, "other")], equal, low, offer=ONE_REGION)
    assert [each.state for each in found] == [DmaState.IMPOSSIBLE, DmaState.POSSIBLE]


def test_command_lines_for_several_do_not_overlap() -> None:
    rungs = (Rung.PENDING_REBOOT,)
    found = verdicts(judged([card(1), card(2)], wish(rungs=rungs)))
    assert [each.state for each in found] == [DmaState.PENDING_REBOOT] * 2
    assert [each.why for each in found] == [
        "add to the kernel: memmap=272M!1776M",
        "add to the kernel: memmap=272M!1488M",
    ]


def test_what_only_root_could_tell_is_unsure() -> None:
    offer = dataclasses.replace(SMALL, ram=None)
    (verdict,) = verdicts(judged([card(1)], wish(rungs=(Rung.PENDING_REBOOT,)), offer=offer))
    assert (verdict.state, verdict.rung) == (DmaState.UNSURE, None)
    assert verdict.why == "pending-reboot: only root may know where memory lies"


def test_what_is_held_without_a_device() -> None:
    held = wish(hold=True, limit=bits_mask(31))
    (found,) = judged([], held)
    assert (found.device, found.wish, found.state) == (None, held, DmaState.POSSIBLE)
    assert [each.device for each in judged([card(1)], held)] == [card(1)]
    assert judged([], wish()) == []
    (unknown,) = verdicts(judged([], wish(hold=True)))
    assert unknown.code == "limit-unknown"
    assert unknown.why == "w is to be held while no such device is there, and has no limit"


def test_a_pool_that_is_held_without_a_device() -> None:
    first = wish("a", pool="p", hold=True, limit=bits_mask(31))
    second = wish("b", "other", pool="p", hold=True, limit=bits_mask(20))
    (found,) = verdicts(judged([], first, second))
    assert found.code == "too-little-below"
    (found,) = verdicts(judged([], first, dataclasses.replace(second, limit=None)))
    assert found.code == "limit-unknown"
    assert [each.device for each in judged([card(1, "other")], first, second)] == [card(1, "other")]


def test_instead_of_the_policy() -> None:
    asked = wish("", size=GIB, priority=0)
    policy = DmaPolicy(wishes=(wish(size=MIB),))
    first, second = reports([card(1), card(2)], policy, SMALL, {card(2).address: asked})
    assert first.wish is policy.wishes[0]
    assert second.wish is asked
    # What the policy wants for the other is promised already.
    assert second.rung is Rung.BLOCKS


@pytest.mark.parametrize(
    ("wishes", "wanted"),
    [
        ((), False),
        ((wish(),), True),
        ((wish("o", "other"),), False),
        ((wish("o", "other", hold=True),), True),
    ],
)
def test_whether_anything_is_wanted(wishes: tuple[Wish, ...], *, wanted: bool) -> None:
    assert anything_wanted([card(1)], DmaPolicy(wishes=wishes)) is wanted


def test_command_lines_do_not_overlap_where_another_rung_fails() -> None:
    """Whether it does shows only when it is tried."""
    first = wish(rungs=(Rung.LOWMEM, Rung.PENDING_REBOOT), priority=9)
    second = wish("x", "other", rungs=(Rung.PENDING_REBOOT,))
    cards = [card(1), card(2, "other"), card(3)]
    one, other, two = verdicts(judged(cards, first, second))
    assert other == verdicts(judged([card(2, "other")], second))[0]
    assert (one.rung, two.rung) == (Rung.LOWMEM, Rung.LOWMEM)
    ends = [each.steps[-1].span for each in (one, other, two)]
    spans = sorted(each for each in ends if each is not None)
    assert len(spans) == 3
    assert all(lower.end < higher.start for lower, higher in itertools.pairwise(spans))


DRIVERS = st.sampled_from(["short", "other", "third"])
CARDS = st.lists(
    st.builds(
        card,
        st.integers(0, 31),
        DRIVERS,
        bits=st.sampled_from([24, 28, 31, 32]),
        iommu=st.sampled_from(Iommu),
    ),
    max_size=6,
    unique_by=lambda each: each.address,
)
WISHES = st.lists(
    st.builds(
        wish,
        st.sampled_from("abc"),
        DRIVERS,
        size=st.integers(1, 1024).map(lambda mib: mib * MIB),
        pool=st.sampled_from([None, "p"]),
        hold=st.booleans(),
        priority=st.integers(0, 2),
        rungs=st.sampled_from([tuple(Rung), ONLY_DEVDAX, (Rung.BLOCKS, Rung.HUGETLB)]),
    ),
    max_size=3,
    unique_by=lambda each: each.name,
)


@given(CARDS, WISHES)
def test_nothing_is_promised_twice(devices: list[Device], wishes: list[Wish]) -> None:
    found = judged(devices, *wishes, offer=ONE_REGION)
    assert [each.device for each in found if each.device is not None] == devices
    once = {
        (each.wish.pool or each.device): each.verdict.step
        for each in found
        if each.wish is not None and each.verdict is not None and each.verdict.step is not None
    }
    taken: dict[str, int] = {}
    for step in once.values():
        taken[step.key] = taken.get(step.key, 0) + step.takes
    assert taken.get("dax0.0", 0) <= 512 * MIB
    assert taken.get("low", 0) <= 3 * GIB
