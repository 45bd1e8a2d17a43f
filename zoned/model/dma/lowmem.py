# SPDX-License-Identifier: Apache-2.0
"""How much of a low zone the kernel keeps from ordinary allocations, by its ratio. Pure.

Sources: mm/page_alloc.c (setup_per_zone_lowmem_reserve: of each zone, the pages of the same node's
higher zones up to that of the allocation, divided by the zone's ratio; 0 switches it off),
Documentation/admin-guide/sysctl/vm.rst (`lowmem_reserve_ratio`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.model.dma.limit import bits_mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from zoned.model.dma.offer import KernelZone, Offer

_PAGE = 4096
_MOST = (1 << 31) - 1
"""The highest that the kernel takes."""
_ORDINARY = "Normal"
"""The zone that ordinary allocations ask for. What may also be moved has Movable above it, and is
kept out by as much at least."""


def low_zone(mask: int) -> str:
    """Return the kernel's zone that a device is served from whose highest address is `mask`."""
    return "DMA" if mask <= bits_mask(24) else "DMA32"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Low:
    """A low zone of one node."""

    zone: KernelZone
    place: int
    """among the zones of its node, which is also that of its ratio"""
    ordinary: int
    """the place of the zone that ordinary allocations ask for"""
    higher: int
    """bytes of the zones above it, up to that one"""

    def kept(self, ratio: int) -> int:
        """Return the bytes that a ratio would keep."""
        pages = self.higher // _PAGE // ratio if ratio else 0
        return min(self.zone.managed, pages * _PAGE)


def demand_of(offer: Offer, wanted: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Return low zone -> bytes to be kept free of it, so that each of those who want some finds
    enough below its limit. `wanted` is pairs of highest address and bytes.

    What is kept may be any part of the zone, so all of it that lies beyond a limit comes on top.
    """
    found: dict[str, int] = {}
    below: dict[str, int] = {}
    for mask, size in sorted(wanted):
        name = low_zone(mask)
        below[name] = below.get(name, 0) + size
        zones = [zone for zone in offer.zones or () if zone.name == name and zone.covered]
        beyond = sum(offer.beyond(zone, mask) for zone in zones)
        found[name] = max(found.get(name, 0), beyond + below[name])
    return found


def protected(zones: Sequence[KernelZone], name: str) -> int:
    """Return the bytes that the kernel keeps of the low zones of that name, as it says itself."""
    return sum(
        min(each.zone.managed, each.zone.protection[each.ordinary])
        for each in _lows(zones, name)
        if each.ordinary < len(each.zone.protection)
    )


def most_protected(zones: Sequence[KernelZone], name: str) -> int:
    """Return the most that it could keep of them."""
    return _kept(zones, name, 1)


def ratios_for(
    zones: Sequence[KernelZone], former: Sequence[int], sizes: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the ratios that keep so many bytes of low zones, by name; where too little can be
    kept, those that keep most.

    `former` is what they were. They stay where they suffice, and are else lowered no further than
    needed: what is kept from ordinary allocations is lost to them.
    """
    found = list(former)
    for name, size in sizes.items():
        place = next((each.place for each in _lows(zones, name)), None)
        if size and place is not None and place < len(found):
            found[place] = _ratio(zones, name, former[place], size)
    return tuple(found)


def _ratio(zones: Sequence[KernelZone], name: str, former: int, size: int) -> int:
    if _kept(zones, name, former) >= size:
        return former
    # Divided by more than there are pages, nothing is left.
    most = sum(each.higher for each in _lows(zones, name)) // _PAGE + 1
    least, beyond = 1, former or min(most, _MOST)
    while beyond - least > 1:
        middle = (least + beyond) // 2
        if _kept(zones, name, middle) >= size:
            least = middle
        else:
            beyond = middle
    return least


def _kept(zones: Sequence[KernelZone], name: str, ratio: int) -> int:
    return sum(each.kept(ratio) for each in _lows(zones, name))


def _lows(zones: Sequence[KernelZone], name: str) -> Iterator[_Low]:
    for node in sorted({zone.node for zone in zones}):
        here = [zone for zone in zones if zone.node == node]
        names = [zone.name for zone in here]
        if name not in names or _ORDINARY not in names:
            continue
        place, ordinary = names.index(name), names.index(_ORDINARY)
        if here[place].managed:
            higher = sum(zone.managed for zone in here[place + 1 : ordinary + 1])
            yield _Low(zone=here[place], place=place, ordinary=ordinary, higher=higher)
