# SPDX-License-Identifier: Apache-2.0
"""Which rung could hold on which machine, and what is said of the others."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.model.dma.offers import BLOCK, GIB, LARGE, MIB, SMALL, low_block, region, step
from zoned.errors import LimitTooLow, TooLittleBelow, ZonedError
from zoned.model.base import DaxMode
from zoned.model.dma.device import Iommu
from zoned.model.dma.ladder import Need, Step, chosen, climb
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.offer import CMA_KEY, LOW_KEY, Offer, Span
from zoned.model.dma.rung import Rung

FOR_PROGRAMS = (Rung.DEVDAX, Rung.HUGETLB)
NOT_LOWMEM = tuple(rung for rung in Rung if rung is not Rung.LOWMEM)


def choice(offer: Offer, size: int = 256 * MIB, bits: int = 31, **need: Any) -> Rung | None:
    """Return the rung that could hold."""
    found = chosen(climb(Need(size=size, mask=bits_mask(bits), **need), offer))
    return None if found is None else found.rung


def with_zone(index: int, **changes: Any) -> Offer:
    """Return SMALL with one of its kernel zones changed."""
    zones = list(SMALL.zones or ())
    zones[index] = dataclasses.replace(zones[index], **changes)
    return dataclasses.replace(SMALL, zones=tuple(zones))


def test_every_rung_is_tried_in_order_and_says_why() -> None:
    steps = climb(Need(size=GIB, mask=bits_mask(31)), SMALL)
    assert [each.rung for each in steps] == list(Rung)
    assert all(each.why for each in steps)


def test_what_each_rung_promises_is_told() -> None:
    for rung in Rung:
        for text in (rung.what, rung.promises, rung.cannot_promise):
            assert re.fullmatch(r"[A-Z].{20,}\.", text)


@pytest.mark.parametrize(
    ("iommu", "holds"),
    [
        (Iommu.TRANSLATED, True),
        (Iommu.PASSTHROUGH, False),
        (Iommu.NONE, False),
        (Iommu.UNKNOWN, False),
    ],
)
def test_iommu(iommu: Iommu, *, holds: bool) -> None:
    assert step(Rung.IOMMU, SMALL, iommu=iommu).holds is holds


def test_devdax_below_the_limit() -> None:
    offer = dataclasses.replace(SMALL, regions=(region("dax0.0", GIB, 512 * MIB),))
    found = step(Rung.DEVDAX, offer)
    assert found == Step(
        rung=Rung.DEVDAX,
        holds=True,
        why="dax0.0 has 512MiB below the limit",
        key="dax0.0",
        takes=256 * MIB,
    )
    assert choice(offer) is Rung.DEVDAX


@pytest.mark.parametrize(
    ("regions", "name"),
    [
        ((region("dax0.0", GIB, 512 * MIB), region("dax1.0", 3 * GIB, GIB)), "dax0.0"),
        ((region("dax0.0", 0, GIB), region("dax1.0", GIB, 512 * MIB)), "dax1.0"),
        ((region("dax0.0", 0, 256 * MIB, node=1), region("dax1.0", GIB, GIB)), "dax1.0"),
        ((region("dax0.0", 0, 255 * MIB), region("dax1.0", GIB, GIB, node=1)), "dax1.0"),
        ((region("dax0.0", 2 * GIB - 256 * MIB, GIB),), "dax0.0"),
    ],
)
def test_devdax_takes_the_tightest_near_it(regions: tuple[Any, ...], name: str) -> None:
    offer = dataclasses.replace(SMALL, regions=regions)
    assert step(Rung.DEVDAX, offer, node=0).key == name


@pytest.mark.parametrize(
    ("regions", "taken"),
    [
        ((), {}),
        ((region("dax0.0", GIB, GIB, mode=DaxMode.SYSTEM_RAM),), {}),
        ((region("dax0.0", GIB, GIB, mode=DaxMode.DISABLED),), {}),
        ((region("dax0.0", 2 * GIB - 255 * MIB, GIB),), {}),
        ((region("dax0.0", GIB, 512 * MIB),), {"dax0.0": 257 * MIB}),
    ],
)
def test_devdax_that_is_no_use(regions: tuple[Any, ...], taken: dict[str, int]) -> None:
    offer = dataclasses.replace(SMALL, regions=regions, taken=taken)
    assert step(Rung.DEVDAX, offer).holds is False


def test_devdax_whose_place_only_root_may_know() -> None:
    hidden = dataclasses.replace(region("dax0.0", 0, GIB), ranges=())
    offer = dataclasses.replace(SMALL, regions=(hidden,))
    assert step(Rung.DEVDAX, offer).holds is None
    # What comes after a rung that might hold is not chosen.
    assert choice(offer) is None


def test_cma() -> None:
    assert step(Rung.CMA, SMALL).holds is False
    offer = with_zone(1, cma=512 * MIB)
    assert step(Rung.CMA, offer, bits=32).key == CMA_KEY
    assert choice(offer, bits=32) is Rung.CMA
    # DMA32 reaches beyond 31 bits, and nobody says where in it the area lies.
    assert step(Rung.CMA, offer, bits=31).holds is False
    areas = (Span(GIB, 256 * MIB), Span(3 * GIB, 256 * MIB))
    known = dataclasses.replace(offer, areas=areas)
    assert step(Rung.CMA, known, bits=31).holds is True
    assert step(Rung.CMA, known, bits=30).holds is False
    promised = dataclasses.replace(known, taken={CMA_KEY: 257 * MIB})
    assert step(Rung.CMA, promised, bits=31).holds is False
    assert step(Rung.CMA, with_zone(2, cma=GIB), bits=32).holds is False


def test_lowmem_counts_what_is_free_below_the_limit() -> None:
    # Of 2 GiB that are free, 1 GiB of memory lies between 2 and 3 GiB.
    assert step(Rung.LOWMEM, SMALL, size=GIB).holds is True
    found = step(Rung.LOWMEM, SMALL, size=GIB + 1)
    assert found.holds is False
    assert found.why == "2GiB of DMA32 are free, of which 1GiB may lie above the limit"
    assert step(Rung.LOWMEM, SMALL, size=2 * GIB, bits=32).holds is True
    assert step(Rung.LOWMEM, SMALL, size=2 * GIB, bits=32).why == "2GiB of DMA32 are free"
    assert step(Rung.LOWMEM, SMALL, size=8 * MIB, bits=24).why == "15MiB of DMA are free"


def test_lowmem_without_root_assumes_the_worst() -> None:
    offer = dataclasses.replace(SMALL, ram=None)
    assert step(Rung.LOWMEM, offer, size=1).holds is False
    assert step(Rung.LOWMEM, offer, size=2 * GIB, bits=32).holds is True


def test_lowmem_that_is_promised_already() -> None:
    offer = dataclasses.replace(SMALL, taken={LOW_KEY: 512 * MIB})
    assert step(Rung.LOWMEM, offer, size=512 * MIB).holds is True
    found = step(Rung.LOWMEM, offer, size=513 * MIB)
    assert found.holds is False
    assert found.why.endswith("and 512MiB are promised already")


@pytest.mark.parametrize(
    ("offer", "why"),
    [
        (dataclasses.replace(SMALL, ratio=None), "the kernel has no vm.lowmem_reserve_ratio"),
        (with_zone(1, managed=0), "it has no zone DMA32"),
        (
            with_zone(1, covered=False),
            "no node with DMA32 has other memory, so the kernel could not protect it",
        ),
    ],
)
def test_lowmem_that_the_kernel_cannot_protect(offer: Offer, why: str) -> None:
    found = step(Rung.LOWMEM, offer)
    assert (found.holds, found.why) == (False, why)


def test_zones_that_cannot_be_read() -> None:
    offer = dataclasses.replace(SMALL, zones=None)
    assert step(Rung.CMA, offer).holds is None
    assert step(Rung.LOWMEM, offer).holds is None


def test_blocks() -> None:
    found = step(Rung.BLOCKS, SMALL, size=200 * MIB, rungs=(Rung.BLOCKS,))
    assert found == Step(
        rung=Rung.BLOCKS,
        holds=True,
        why="of 16 blocks of 128MiB below the limit 15 can go",
        key=LOW_KEY,
        takes=2 * BLOCK,
    )
    assert step(Rung.BLOCKS, SMALL, size=15 * BLOCK).holds is True
    assert step(Rung.BLOCKS, SMALL, size=15 * BLOCK + 1).why.endswith("and 16 are needed")
    taken = dataclasses.replace(SMALL, taken={LOW_KEY: BLOCK + 1})
    assert step(Rung.BLOCKS, taken, size=13 * BLOCK).holds is True
    assert step(Rung.BLOCKS, taken, size=14 * BLOCK).holds is False


def test_blocks_that_stay_above_the_limit_are_told() -> None:
    blocks = tuple(low_block(n, can=n not in {0, 20, 21}) for n in range(24))
    found = step(Rung.BLOCKS, dataclasses.replace(SMALL, low_blocks=blocks))
    assert found.holds is True
    assert found.why.endswith("256MiB above the limit may stay in the kernel's low zone")


def test_blocks_that_are_offline_count_where_they_can_come_back_low() -> None:
    blocks = (low_block(0), low_block(1, can=False, zones="DMA32 Movable"))
    offer = dataclasses.replace(SMALL, low_blocks=(*blocks, low_block(2, zones="Normal Movable")))
    # One of the two stays where both could go? No: the third is below the limit, too.
    assert step(Rung.BLOCKS, offer, size=2 * BLOCK).holds is True
    assert step(Rung.BLOCKS, offer, size=3 * BLOCK).holds is False


def test_the_last_block_below_the_limit_stays() -> None:
    offer = dataclasses.replace(SMALL, low_blocks=(low_block(0), low_block(1)))
    assert step(Rung.BLOCKS, offer, size=BLOCK).holds is True
    assert step(Rung.BLOCKS, offer, size=2 * BLOCK).holds is False


def test_blocks_of_which_it_cannot_be_told() -> None:
    blocks = tuple(low_block(n, can=None) for n in range(16))
    offer = dataclasses.replace(SMALL, low_blocks=blocks)
    found = step(Rung.BLOCKS, offer, rungs=(Rung.BLOCKS,))
    assert found.holds is None
    assert found.why.endswith("and of 16 that cannot be told: slab")


@pytest.mark.parametrize("rung", [Rung.BLOCKS, Rung.HUGETLB])
def test_large_blocks_are_no_use(rung: Rung) -> None:
    assert step(rung, LARGE, bits=30).why == (
        "no memory block, of 2GiB each, lies wholly below the limit"
    )
    assert step(rung, LARGE).why.startswith("of 1 block of 2GiB below the limit 0 can go")
    assert choice(LARGE, rungs=(rung, Rung.PENDING_REBOOT)) is Rung.PENDING_REBOOT


@pytest.mark.parametrize("rung", [Rung.BLOCKS, Rung.HUGETLB])
def test_no_memory_hotplug(rung: Rung) -> None:
    offer = dataclasses.replace(SMALL, block_size=None, low_blocks=())
    assert step(rung, offer).holds is False


def test_hugetlb() -> None:
    assert choice(SMALL, rungs=FOR_PROGRAMS) is Rung.HUGETLB
    movable = tuple(low_block(n, zones="Movable") for n in range(16))
    offer = dataclasses.replace(SMALL, low_blocks=movable)
    assert step(Rung.HUGETLB, offer).holds is True
    assert step(Rung.BLOCKS, offer).holds is False
    assert step(Rung.HUGETLB, dataclasses.replace(SMALL, huge_sizes=())).holds is False
    assert step(Rung.HUGETLB, dataclasses.replace(SMALL, huge_sizes=(GIB,))).holds is False


def test_forced_rungs() -> None:
    assert choice(SMALL) is Rung.LOWMEM
    assert choice(SMALL, rungs=NOT_LOWMEM) is Rung.BLOCKS
    found = step(Rung.LOWMEM, SMALL, rungs=NOT_LOWMEM)
    assert (found.holds, found.why) == (False, "the policy does not allow it")
    assert choice(LARGE, rungs=(Rung.BLOCKS,)) is None


def test_limit_below_all_memory() -> None:
    with pytest.raises(LimitTooLow, match=r"12 bits lies below .* 0x1000"):
        climb(Need(size=4096, mask=bits_mask(12)), SMALL)
    without_root = dataclasses.replace(SMALL, ram=None)
    with pytest.raises(LimitTooLow):
        climb(Need(size=4096, mask=bits_mask(12)), without_root)


def test_more_than_lies_below_the_limit() -> None:
    with pytest.raises(TooLittleBelow) as caught:
        climb(Need(size=2 * GIB, mask=bits_mask(31)), SMALL)
    assert caught.value.message == (
        "2048MiB are wanted below 31 bits, and 2047MiB of memory lie there"
    )
    without_root = dataclasses.replace(SMALL, ram=None)
    with pytest.raises(TooLittleBelow):
        climb(Need(size=2 * GIB, mask=bits_mask(31)), without_root)
    nothing = dataclasses.replace(without_root, zones=None)
    assert climb(Need(size=2 * GIB, mask=bits_mask(31)), nothing)


def test_regions_count_as_memory_below_the_limit() -> None:
    offer = dataclasses.replace(SMALL, ram=(Span(0, 64 * MIB),), regions=(region("d", GIB, GIB),))
    assert choice(offer, size=GIB) is Rung.DEVDAX


def test_behind_an_iommu_nothing_is_too_much() -> None:
    assert choice(SMALL, size=64 * GIB, iommu=Iommu.TRANSLATED) is Rung.IOMMU
    with pytest.raises(TooLittleBelow):
        choice(SMALL, size=64 * GIB, iommu=Iommu.TRANSLATED, rungs=FOR_PROGRAMS)


AMOUNTS = st.integers(1, 4096).map(lambda mib: mib * MIB)


@given(AMOUNTS, st.integers(12, 64), st.sampled_from([SMALL, LARGE]), st.booleans())
def test_the_choice_is_the_first_that_holds(
    size: int, bits: int, offer: Offer, known: object
) -> None:
    need = Need(size=size, mask=bits_mask(bits))
    seen = offer if known else dataclasses.replace(offer, ram=None, zones=None)
    try:
        steps = climb(need, seen)
    except ZonedError as error:
        assert error.code in {"limit-too-low", "too-little-below"}  # noqa: PT017
        return
    found = chosen(steps)
    before = steps if found is None else steps[: steps.index(found)]
    if found is not None:
        assert found.holds is True
        assert all(each.holds is False for each in before)
    else:
        assert not any(each.holds for each in before[: _first_unsure(before)])


def _first_unsure(steps: tuple[Step, ...]) -> int:
    return next((index for index, each in enumerate(steps) if each.holds is None), len(steps))


def test_low_memory_that_the_kernel_could_not_keep() -> None:
    zones = tuple(
        dataclasses.replace(zone, managed=512 * MIB if zone.name == "Normal" else zone.managed)
        for zone in SMALL.zones or ()
    )
    found = step(Rung.LOWMEM, dataclasses.replace(SMALL, zones=zones))
    assert found.holds is False
    assert found.why.endswith("; of the 1.2GiB that it takes, it could protect 512MiB")
