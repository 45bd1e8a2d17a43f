# SPDX-License-Identifier: Apache-2.0
"""How much of low memory the kernel keeps by its ratio."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.model.dma.offers import GIB, MIB, SMALL
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.lowmem import demand_of, low_zone, most_protected, protected, ratios_for
from zoned.model.dma.offer import KernelZone

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 4096
RATIO = (256, 256, 32, 0, 0)
ZONES = SMALL.zones or ()


def by_kernel(zones: Sequence[KernelZone], ratio: Sequence[int]) -> list[KernelZone]:
    """Return the zones with what the kernel keeps of each, by its own rule."""
    found = []
    for zone in zones:
        here = [each for each in zones if each.node == zone.node]
        place = here.index(zone)
        kept, pages = [], 0
        for other, each in enumerate(here):
            if other > place:
                pages += each.managed // PAGE
            keeps = other > place and ratio[place] and zone.managed
            kept.append(pages // ratio[place] * PAGE if keeps else 0)
        found.append(dataclasses.replace(zone, protection=tuple(kept)))
    return found


def node(number: int, *managed: int) -> list[KernelZone]:
    """Return the zones DMA, DMA32, Normal and Movable of a node."""
    names = ("DMA", "DMA32", "Normal", "Movable")
    pairs = zip(names, managed, strict=True)
    return [KernelZone(node=number, name=name, managed=size) for name, size in pairs]


@pytest.mark.parametrize(("bits", "name"), [(20, "DMA"), (24, "DMA"), (25, "DMA32"), (32, "DMA32")])
def test_the_zone_of_a_limit(bits: int, name: str) -> None:
    assert low_zone(bits_mask(bits)) == name


def test_no_ratio_is_lower_than_needed() -> None:
    # 12 GiB of Normal / 48 = 256 MiB, / 49 is less.
    assert ratios_for(ZONES, RATIO, {"DMA32": 256 * MIB}) == (256, 48, 32, 0, 0)
    assert ratios_for(ZONES, RATIO, {"DMA32": 256 * MIB + PAGE}) == (256, 47, 32, 0, 0)


def test_what_suffices_stays() -> None:
    assert ratios_for(ZONES, RATIO, {"DMA32": 48 * MIB}) == RATIO
    assert ratios_for(ZONES, (256, 7, 32, 0, 0), {"DMA32": MIB}) == (256, 7, 32, 0, 0)
    assert ratios_for(ZONES, RATIO, {}) == RATIO
    assert ratios_for(ZONES, RATIO, {"DMA": 0, "DMA32": 0}) == RATIO


def test_one_that_was_switched_off_is_switched_on() -> None:
    assert ratios_for(ZONES, (0, 0, 0, 0, 0), {"DMA32": 256 * MIB}) == (0, 48, 0, 0, 0)
    assert ratios_for(ZONES, (0, 0), {"DMA32": 1}) == (0, 12 * GIB // PAGE)


def test_where_too_little_can_be_kept_it_is_the_most() -> None:
    zones = node(0, 0, 2 * GIB, GIB, 0)
    assert ratios_for(zones, RATIO, {"DMA32": 2 * GIB})[1] == 1
    assert most_protected(zones, "DMA32") == GIB


def test_each_zone_has_its_own() -> None:
    found = ratios_for(ZONES, RATIO, {"DMA": 15 * MIB, "DMA32": 512 * MIB})
    assert found == (256, 24, 32, 0, 0)
    assert ratios_for(ZONES, (9999, 256), {"DMA": 15 * MIB})[0] == 1019
    # A kernel of fewer ratios than zones.
    assert ratios_for(ZONES, (256,), {"DMA32": 512 * MIB}) == (256,)


def test_movable_memory_does_not_keep_ordinary_allocations_out() -> None:
    zones = node(0, 0, 2 * GIB, 0, 8 * GIB)
    assert most_protected(zones, "DMA32") == 0
    assert protected(by_kernel(zones, (1, 1, 1, 1)), "DMA32") == 0


def test_what_the_kernel_says() -> None:
    zones = by_kernel(ZONES, (256, 48, 32))
    assert protected(zones, "DMA32") == 256 * MIB
    assert protected(ZONES, "DMA32") == 0
    assert protected((), "DMA32") == 0
    # More is kept than there is.
    assert protected(by_kernel(ZONES, (1, 1, 1)), "DMA") == 15 * MIB


def test_nodes_add_up() -> None:
    zones = [*node(0, 0, GIB, GIB, 0), *node(1, 0, GIB, 3 * GIB, 0), *node(2, 0, 0, GIB, 0)]
    (ratio,) = set(ratios_for(zones, (256, 256), {"DMA32": GIB})) - {256}
    assert ratio == 4
    assert protected(by_kernel(zones, (256, 4, 0, 0)), "DMA32") == GIB
    assert most_protected([KernelZone(node=0, name="DMA32", managed=GIB)], "DMA32") == 0


@given(
    st.lists(
        st.tuples(*[st.integers(0, 1 << 20)] * 3).map(
            lambda pages: (0, pages[0] * PAGE, pages[1] * PAGE, pages[2] * PAGE)
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 1000),
    st.integers(0, 1 << 33),
)
def test_the_kernel_keeps_what_was_asked_for_where_it_can(
    sizes: list[tuple[int, int, int, int]], former: int, wanted: int
) -> None:
    zones = [zone for number, each in enumerate(sizes) for zone in node(number, *each)]
    _, ratio, *_ = ratios_for(zones, (256, former, 32, 0), {"DMA32": wanted})
    kept = protected(by_kernel(zones, (256, ratio, 32, 0)), "DMA32")
    assert kept >= min(wanted, most_protected(zones, "DMA32"))
    if ratio != former and wanted <= most_protected(zones, "DMA32"):
        gentler = protected(by_kernel(zones, (256, ratio + 1, 32, 0)), "DMA32")
        assert gentler < wanted or ratio + 1 == former or not wanted


def test_what_lies_beyond_a_limit_is_kept_on_top() -> None:
    # 3 GiB lie below 4 GiB: of these 1 beyond 31 bits.
    assert demand_of(SMALL, [(bits_mask(32), 5)]) == {"DMA32": 5}
    assert demand_of(SMALL, [(bits_mask(31), 5)]) == {"DMA32": GIB + 5}
    both = [(bits_mask(32), 3 * GIB), (bits_mask(31), 5)]
    assert demand_of(SMALL, both) == {"DMA32": 3 * GIB + 5}
    assert demand_of(SMALL, [(bits_mask(31), 5), (bits_mask(30), 7)]) == {"DMA32": 2 * GIB + 7}
    assert demand_of(SMALL, [(bits_mask(24), 5), (bits_mask(32), 7)]) == {"DMA": 5, "DMA32": 7}
    assert demand_of(SMALL, []) == {}
    assert demand_of(dataclasses.replace(SMALL, zones=None), [(bits_mask(31), 5)]) == {"DMA32": 5}
