# SPDX-License-Identifier: Apache-2.0
"""The ladder, climbed: which rung could hold a reservation on this machine, and why no other.

Decided from what was seen; whether a rung really holds shows only when it is set foot on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.errors import LimitTooLow, TooLittleBelow
from zoned.model.base import DaxMode
from zoned.model.dma.boot_line import already_set_aside, boot_span, boot_words
from zoned.model.dma.device import Iommu
from zoned.model.dma.limit import mask_text
from zoned.model.dma.lowmem import demand_of, low_zone, most_protected
from zoned.model.dma.offer import CMA_KEY, LOW_KEY, Span, is_low
from zoned.model.dma.rung import Rung
from zoned.model.topology import BlockState
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned.model.block import Outlook
    from zoned.model.dma.offer import Offer

_ROOT = "only root may know"
_NO_ZONES = "the kernel does not tell its zones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is wanted, for one device or for all that share a pool."""

    size: int
    """bytes"""
    mask: int
    """the highest address that the memory may have"""
    rungs: tuple[Rung, ...] = tuple(Rung)
    iommu: Iommu = Iommu.UNKNOWN
    node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What became of one rung."""

    rung: Rung
    holds: bool | None
    """None where it cannot be told"""
    why: str
    key: str = ""
    """what of the offer it would take from, see `Offer.taken`"""
    takes: int = 0
    """bytes that it would take of that"""
    span: Span | None = None
    """what it would set aside at the next boot"""
    booted: bool = False
    """whether this boot has done so, and only a region is to be made of it"""


def climb(need: Need, offer: Offer) -> tuple[Step, ...]:
    """Return what each rung would do, in the ladder's order; the first that holds is the choice.

    Raises LimitTooLow where no memory lies below the limit, TooLittleBelow where less does than is
    wanted: no rung can help that. A device behind an IOMMU that translates has neither trouble,
    unless memory is insisted on.
    """
    steps = tuple(_step(rung, need, offer) for rung in Rung)
    if not steps[0].holds:
        _refuse_nonsense(need, offer)
    return steps


def at_next_boot(need: Need, offer: Offer) -> Step:
    """Return what becomes of the last rung alone."""
    return _step(Rung.PENDING_REBOOT, need, offer)


def chosen(steps: Sequence[Step]) -> Step | None:
    """Return the first rung that holds; None where none does, or one before it might."""
    for step in steps:
        if step.holds is None:
            return None
        if step.holds:
            return step
    return None


def behind_iommu(iommu: Iommu) -> Step:
    """Return what becomes of the first rung."""
    return Step(rung=Rung.IOMMU, holds=iommu is Iommu.TRANSLATED, why=_IOMMU_WORDS[iommu])


def _refuse_nonsense(need: Need, offer: Offer) -> None:
    limit = mask_text(need.mask)
    if offer.lowest is not None and need.mask < offer.lowest:
        raise LimitTooLow(
            f"a limit of {limit} lies below the lowest memory of this machine, {offer.lowest:#x}"
        )
    most = offer.most_below(need.mask)
    if most is not None and need.size > most:
        # Rounded, what is wanted and what is there may read the same.
        wanted, there = f"{-(-need.size >> 20)}MiB", f"{most >> 20}MiB"
        raise TooLittleBelow(
            f"{wanted} are wanted below {limit}, and {there} of memory lie there",
            hint="ask for less",
        )


def _step(rung: Rung, need: Need, offer: Offer) -> Step:
    if rung not in need.rungs:
        return Step(rung=rung, holds=False, why="the policy does not allow it")
    return _TRY[rung](need, offer)


def _iommu(need: Need, _offer: Offer) -> Step:
    return Step(rung=Rung.IOMMU, holds=need.iommu is Iommu.TRANSLATED, why=_IOMMU_WORDS[need.iommu])


_IOMMU_WORDS = {
    Iommu.TRANSLATED: "the IOMMU translates, so any memory will do",
    Iommu.PASSTHROUGH: "the IOMMU lets the device's addresses through as they are",
    Iommu.NONE: "no IOMMU stands between the device and memory",
    Iommu.UNKNOWN: "the machine does not tell of an IOMMU, so none is relied on",
}


def _devdax(need: Need, offer: Offer) -> Step:
    free = [each for each in offer.regions if each.mode is DaxMode.DEVDAX]
    if not free:
        why = "no device-dax region that programs could map"
        return Step(rung=Rung.DEVDAX, holds=False, why=why)
    rooms = {
        each.name: offer.left(each.name, sum(Span(*one).below(need.mask) for one in each.ranges))
        for each in free
    }
    near = [each.name for each in free if rooms[each.name] >= need.size and each.node == need.node]
    fits = near or [each.name for each in free if rooms[each.name] >= need.size]
    if fits:
        # The tightest fit leaves the larger regions to larger reservations.
        name = min(fits, key=lambda each: rooms[each])
        why = f"{name} has {format_size(rooms[name])} below the limit"
        return Step(rung=Rung.DEVDAX, holds=True, why=why, key=name, takes=need.size)
    if any(not each.ranges for each in free):
        return Step(rung=Rung.DEVDAX, holds=None, why=f"{_ROOT} where device-dax regions lie")
    found = ", ".join(f"{name} {format_size(room)}" for name, room in rooms.items())
    why = f"no region has so much below the limit that is not promised already: {found}"
    return Step(rung=Rung.DEVDAX, holds=False, why=why)


def _cma(need: Need, offer: Offer) -> Step:
    if offer.zones is None:
        return Step(rung=Rung.CMA, holds=None, why=_NO_ZONES)
    if not offer.cma:
        return Step(rung=Rung.CMA, holds=False, why="the kernel has no CMA area")
    room = offer.left(CMA_KEY, offer.cma_below(need.mask))
    if room >= need.size:
        why = f"{format_size(room)} of CMA lie below the limit"
        return Step(rung=Rung.CMA, holds=True, why=why, key=CMA_KEY, takes=need.size)
    why = (
        f"of {format_size(offer.cma)} of CMA, {format_size(room)} are known to lie below the limit"
    )
    return Step(rung=Rung.CMA, holds=False, why=f"{why} and not promised already")


def _lowmem(need: Need, offer: Offer) -> Step:
    rung = Rung.LOWMEM
    if offer.zones is None:
        return Step(rung=rung, holds=None, why=_NO_ZONES)
    name = low_zone(need.mask)
    zones = [zone for zone in offer.zones if zone.name == name and zone.managed and zone.span]
    if offer.ratio is None or not zones:
        why = "the kernel has no vm.lowmem_reserve_ratio" if zones else f"it has no zone {name}"
        return Step(rung=rung, holds=False, why=why)
    covered = [zone for zone in zones if zone.covered]
    if not covered:
        why = f"no node with {name} has other memory, so the kernel could not protect it"
        return Step(rung=rung, holds=False, why=why)
    free = sum(zone.free for zone in covered)
    above = sum(min(zone.free, offer.beyond(zone, need.mask)) for zone in covered)
    room = offer.left(LOW_KEY, free - above)
    why = f"{format_size(free)} of {name} are free"
    if above:
        why += f", of which {format_size(above)} may lie above the limit"
    if offer.taken.get(LOW_KEY):
        why += f", and {format_size(offer.taken[LOW_KEY])} are promised already"
    most = most_protected(offer.zones, name)
    demand = demand_of(offer, [(need.mask, need.size + offer.taken.get(LOW_KEY, 0))])[name]
    if room >= need.size and most < demand:
        why += f"; of the {format_size(demand)} that it takes, it could protect {format_size(most)}"
        return Step(rung=rung, holds=False, why=why)
    holds = room >= need.size
    return Step(rung=rung, holds=holds, why=why, key=LOW_KEY, takes=need.size if holds else 0)


def _blocks(need: Need, offer: Offer) -> Step:
    step = _by_blocks(Rung.BLOCKS, need, offer, is_low)
    stay = [each for each in offer.blocks_between(need.mask) if each.can is not True]
    if step.holds and stay:
        size = format_size(len(stay) * (offer.block_size or 0))
        why = f"{step.why}; {size} above the limit may stay in the kernel's low zone"
        return dataclasses.replace(step, why=why)
    return step


def _hugetlb(need: Need, offer: Offer) -> Step:
    size = offer.block_size or 0
    if not any(each <= size for each in offer.huge_sizes):
        why = "no huge pages that fit in a memory block"
        return Step(rung=Rung.HUGETLB, holds=False, why=why)
    return _by_blocks(Rung.HUGETLB, need, offer, lambda _: True)


def _by_blocks(rung: Rung, need: Need, offer: Offer, fits: Callable[[Outlook], bool]) -> Step:
    size = offer.block_size
    if not size:
        return Step(rung=rung, holds=False, why="this machine has no memory hotplug")
    below = offer.blocks_below(need.mask)
    if not below:
        why = f"no memory block, of {format_size(size)} each, lies wholly below the limit"
        return Step(rung=rung, holds=False, why=why)
    usable = [each for each in below if fits(each)]
    ready = [each for each in usable if each.can or each.block.state is BlockState.OFFLINE]
    doubtful = [each for each in usable if each.can is None and each not in ready]
    wanted = -(-need.size // size)
    # The kernel's zone has to keep a block on which to grow again.
    keep = 1 if len(ready) == len(below) else 0
    promised = -(-offer.taken.get(LOW_KEY, 0) // size)
    room = len(ready) - keep - promised
    blocks = "block" if len(below) == 1 else "blocks"
    why = f"of {len(below)} {blocks} of {format_size(size)} below the limit {len(ready)} can go"
    if promised:
        why += f", and {promised} are promised already"
    if room >= wanted:
        return Step(rung=rung, holds=True, why=why, key=LOW_KEY, takes=wanted * size)
    if room + len(doubtful) >= wanted:
        why += f", and of {len(doubtful)} that cannot be told: {doubtful[0].why}"
        return Step(rung=rung, holds=None, why=why)
    return Step(rung=rung, holds=False, why=f"{why}, and {wanted} are needed")


def _pending_reboot(need: Need, offer: Offer) -> Step:
    rung = Rung.PENDING_REBOOT
    if offer.ram is None:
        return Step(rung=rung, holds=None, why=f"{_ROOT} where memory lies")
    ready = already_set_aside(need.mask, need.size, offer)
    if ready is not None:
        why = f"set aside at this boot ({boot_words(ready)}), and no device-dax region yet"
        return Step(rung=rung, holds=True, why=why, span=ready, booted=True)
    found = boot_span(need.mask, need.size, offer)
    if isinstance(found, str):
        return Step(rung=rung, holds=False, why=found)
    return Step(rung=rung, holds=True, why=f"add to the kernel: {boot_words(found)}", span=found)


_TRY: dict[Rung, Callable[[Need, Offer], Step]] = {
    Rung.IOMMU: _iommu,
    Rung.DEVDAX: _devdax,
    Rung.CMA: _cma,
    Rung.LOWMEM: _lowmem,
    Rung.BLOCKS: _blocks,
    Rung.HUGETLB: _hugetlb,
    Rung.PENDING_REBOOT: _pending_reboot,
}
