# SPDX-License-Identifier: Apache-2.0
"""All devices of a machine together: who gets what from which rung, the most important first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned.errors import DmaContradiction, LimitUnknown, ZonedError
from zoned.model.dma.device import Iommu
from zoned.model.dma.ladder import Need, at_next_boot, behind_iommu, chosen, climb
from zoned.model.dma.limit import Limit, device_limit, mask_text
from zoned.model.dma.rung import Rung
from zoned.model.dma.standing import first_of, fits, less_held, own_name
from zoned.model.dma.wish import device_wish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned.model.dma.device import Device
    from zoned.model.dma.held import Held
    from zoned.model.dma.ladder import Step
    from zoned.model.dma.offer import Offer
    from zoned.model.dma.wish import DmaPolicy, Wish


class DmaState(StrEnum):
    """How it stands with what the policy wants for a device."""

    SATISFIED = "satisfied"
    """nothing is needed: the IOMMU translates, or the device reaches all memory"""
    RESERVED = "reserved"
    """the memory is there"""
    POSSIBLE = "possible"
    """a rung could hold; nothing is reserved"""
    UNSURE = "unsure"
    """what the best rung depends on cannot be seen"""
    PENDING_REBOOT = "pending-reboot"
    """only with other words on the kernel's command line"""
    IMPOSSIBLE = "impossible"
    """no rung that may be tried can hold"""
    REFUSED = "refused"
    """the policy contradicts itself, or asks for what makes no sense"""
    WAITING = "waiting"
    """asked for by hand, and the device is not there"""
    LEAVING = "leaving"
    """it is there, nobody wants it any more, and it goes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What can be had for a device, or for all that share a pool."""

    state: DmaState
    why: str = ""
    """why nothing is needed, or can be had"""
    code: str = ""
    """the code of the error, where it is refused"""
    hint: str = ""
    steps: tuple[Step, ...] = ()
    step: Step | None = None
    """the rung that could hold"""
    need: Need | None = None
    """what the ladder was climbed for; None where it was not"""

    @property
    def rung(self) -> Rung | None:
        """The rung that could hold."""
        return None if self.step is None else self.step.rung


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One device, what is wanted for it, and what it has."""

    device: Device | None
    """None where memory is to be held while no such device is there"""
    limit: Limit
    wish: Wish | None = None
    verdict: Verdict | None = None
    """None where nothing is wanted"""
    reserved: int = 0
    """bytes that are there now: for the device, or in the pool that it shares"""
    holding: Rung | None = None
    """the rung that holds them"""
    name: str = ""
    """of the reservation; none where nothing is wanted"""

    @property
    def state(self) -> DmaState | None:
        """How it stands; None where nothing is wanted."""
        if self.holding is not None:
            return DmaState.RESERVED
        return None if self.verdict is None else self.verdict.state

    @property
    def rung(self) -> Rung | None:
        """The rung that holds, or that could."""
        return self.holding or (None if self.verdict is None else self.verdict.rung)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    device: Device | None
    limit: Limit = field(default_factory=Limit)
    wish: Wish | None = None
    error: ZonedError | None = None
    name: str = ""


def anything_wanted(devices: Sequence[Device], policy: DmaPolicy) -> bool:
    """Return whether the policy wants anything for any of the devices, or while none is there."""
    return any(
        wish.hold or any(wish.match.fit(device) for device in devices) for wish in policy.wishes
    )


def reports(
    devices: Sequence[Device],
    policy: DmaPolicy,
    offer: Offer,
    instead: Mapping[str, Wish] | None = None,
    held: Mapping[str, Held] | None = None,
) -> tuple[Report, ...]:
    """Return how it stands with each device, in their order; then with what is to be held while no
    such device is there.

    Whoever has the higher priority chooses first, then what the policy names first, then the lower
    address. What one is to get, or has already (`held`, by name), the next cannot have. What is
    refused of one device keeps no other from its memory. `instead` is address -> what is wanted for
    that device, whatever the policy says.
    """
    cases = [_case(device, policy, (instead or {}).get(device.address)) for device in devices]
    cases += _absent(cases, policy)
    verdicts = [_at_once(case, offer) for case in cases]
    held = held or {}
    cases = _named(cases, verdicts, held)
    groups = _groups(cases, verdicts, policy)
    for group, verdict in _climbed_all(cases, groups, offer, held):
        for index in group:
            verdicts[index] = verdict
    return tuple(
        _report(case, verdict, held) for case, verdict in zip(cases, verdicts, strict=True)
    )


def _climbed_all(
    cases: Sequence[_Case], groups: Sequence[list[int]], offer: Offer, held: Mapping[str, Held]
) -> Iterator[tuple[list[int], Verdict]]:
    """Yield each group with what can be had for it, beside what others are to get."""
    left = less_held(offer, held.values())
    missing: list[tuple[list[int], Verdict]] = []
    for group in groups:
        name = cases[group[0]].name
        # What one has itself is there for it once more.
        others = [each for each in held.values() if each.name != name]
        there = less_held(offer, others) if name in held else left
        there = dataclasses.replace(there, pending=left.pending)
        verdict = _climbed([cases[index] for index in group], there)
        if name in held and _stands(held[name], verdict):
            yield group, verdict
            continue
        left = _less_at_boot(left, verdict) if name in held else _less(left, verdict)
        missing.append((group, verdict))
    for group, verdict in missing:
        found, left = _else_at_boot(verdict, left)
        yield group, found


def _report(case: _Case, verdict: Verdict | None, held: Mapping[str, Held]) -> Report:
    mine = held.get(case.name)
    stands = mine is not None and _stands(mine, verdict)
    return Report(
        device=case.device,
        limit=case.limit,
        wish=case.wish,
        verdict=verdict,
        name=case.name,
        reserved=mine.size if mine is not None and stands else 0,
        holding=mine.rung if mine is not None and stands else None,
    )


def _stands(held: Held, verdict: Verdict | None) -> bool:
    """Return whether what is held is what is wanted."""
    need = None if verdict is None else verdict.need
    return (
        held.standing
        and need is not None
        and fits(held, size=need.size, mask=need.mask, rungs=need.rungs)
    )


def _named(
    cases: Sequence[_Case], verdicts: Sequence[Verdict | None], held: Mapping[str, Held]
) -> list[_Case]:
    """Return the cases, each with the name of what is to be reserved for it.

    That is the pool's, or the wish's with the device's address behind it; of one that is held also
    without a device the wish's alone, which one of its devices has once there are some.
    """
    climbing: dict[str, list[str]] = {}
    for case, verdict in zip(cases, verdicts, strict=True):
        if case.wish is not None and case.device is not None and verdict is None:
            climbing.setdefault(case.wish.name, []).append(case.device.address)
    found = []
    for case in cases:
        wish, device = case.wish, case.device
        if wish is None:
            found.append(case)
            continue
        name = wish.pool or wish.name
        if wish.pool is None and device is not None:
            there = climbing.get(wish.name, [])
            if not wish.hold or first_of(wish, there, held) != device.address:
                name = own_name(wish, device.address)
        found.append(dataclasses.replace(case, name=name))
    return found


def reach(limit: Limit, wish: Wish) -> int | None:
    """Return the highest address that the memory may have: the lower of what is known."""
    known = [mask for mask in (limit.mask, wish.limit) if mask is not None]
    return min(known, default=None)


def _case(device: Device, policy: DmaPolicy, wish: Wish | None) -> _Case:
    try:
        wish = wish or device_wish(device, policy.wishes)
        limit = device_limit(device, policy.quirks)
    except DmaContradiction as error:
        limit = Limit(reason="the policy contradicts itself")
        return _Case(device=device, limit=limit, wish=wish, error=error)
    return _Case(device=device, limit=limit, wish=wish)


def _absent(cases: Sequence[_Case], policy: DmaPolicy) -> list[_Case]:
    """Return a case for each wish, or pool, that is held and has no device."""
    there = {_pool(case.wish) for case in cases if case.wish is not None}
    held: dict[object, list[Wish]] = {}
    for wish in policy.wishes:
        if wish.hold and _pool(wish) not in there:
            held.setdefault(_pool(wish), []).append(wish)
    return [_Case(device=None, wish=_together(wishes)) for wishes in held.values()]


def _together(wishes: Sequence[Wish]) -> Wish:
    """Return one wish for several of a pool: its limit is the lowest, where all have one."""
    limits = [wish.limit for wish in wishes]
    known = [limit for limit in limits if limit is not None]
    return dataclasses.replace(wishes[0], limit=min(known) if len(known) == len(limits) else None)


def _pool(wish: Wish) -> tuple[str | None, str]:
    """Return what wishes for the same memory have in common."""
    return wish.pool, "" if wish.pool else wish.name


def _groups(
    cases: Sequence[_Case], verdicts: Sequence[Verdict | None], policy: DmaPolicy
) -> list[list[int]]:
    """Return the cases that climb the ladder, as positions: those that share a pool together, the
    most important first.
    """
    rank: dict[object, int] = {}
    for place, wish in enumerate(policy.wishes):
        rank.setdefault(_pool(wish), place)
    groups: dict[tuple[int, int, int], list[int]] = {}
    for place, (case, verdict) in enumerate(zip(cases, verdicts, strict=True)):
        if case.wish is not None and verdict is None:
            own = -1 if case.wish.pool else place
            last = len(rank)
            key = (-case.wish.priority, rank.get(_pool(case.wish), last), own)
            groups.setdefault(key, []).append(place)
    return [group for _, group in sorted(groups.items())]


def _at_once(case: _Case, offer: Offer) -> Verdict | None:
    """Return what can be told without the ladder; None where it is to be climbed, or nothing is
    wanted.
    """
    if case.error is not None:
        return _refused(case.error)
    wish = case.wish
    if wish is None:
        return None
    mask = reach(case.limit, wish)
    if not wish.insists:
        satisfied = _satisfied(case.device, mask, offer)
        if satisfied is not None:
            return satisfied
    return None if mask is not None else _refused(_limit_unknown(case, wish))


def _satisfied(device: Device | None, mask: int | None, offer: Offer) -> Verdict | None:
    """Return that nothing is needed; None where something is."""
    if device is not None and device.iommu is Iommu.TRANSLATED:
        step = behind_iommu(device.iommu)
        return Verdict(state=DmaState.SATISFIED, why=step.why, steps=(step,), step=step)
    if mask is None or offer.end is None or offer.end - 1 > mask:
        return None
    why = f"with {mask_text(mask)} all memory of this machine can be reached"
    return Verdict(state=DmaState.SATISFIED, why=why)


def _limit_unknown(case: _Case, wish: Wish) -> LimitUnknown:
    hint = "give `limit` in the reservation, or a quirk"
    if case.device is None:
        why = f"{wish.name} is to be held while no such device is there, and has no limit"
        return LimitUnknown(why, hint=hint)
    why = f"nobody knows how far {case.device.address} reaches: {case.limit.reason}"
    return LimitUnknown(why, hint=hint)


def _refused(error: ZonedError) -> Verdict:
    return Verdict(state=DmaState.REFUSED, why=error.message, code=str(error.code), hint=error.hint)


def _climbed(group: Sequence[_Case], offer: Offer) -> Verdict:
    """Return what can be had for cases that share what they want."""
    wants = [(case, case.wish) for case in group if case.wish is not None]
    masks = [reach(case.limit, wish) for case, wish in wants]
    nodes = {case.device.node for case in group if case.device is not None}
    iommus = {case.device.iommu for case in group if case.device is not None}
    _, wish = wants[0]
    need = Need(
        size=wish.size,
        mask=min(mask for mask in masks if mask is not None),
        rungs=wish.rungs,
        iommu=iommus.pop() if len(iommus) == 1 else Iommu.UNKNOWN,
        node=nodes.pop() if len(nodes) == 1 else None,
    )
    try:
        steps = climb(need, offer)
    except ZonedError as error:
        return dataclasses.replace(_refused(error), need=need)
    return _judged(steps, need)


def _judged(steps: tuple[Step, ...], need: Need) -> Verdict:
    step = chosen(steps)
    if step is not None:
        pending = step.rung is Rung.PENDING_REBOOT
        state = DmaState.PENDING_REBOOT if pending else DmaState.POSSIBLE
        return Verdict(state=state, why=step.why, steps=steps, step=step, need=need)
    unsure = next((each for each in steps if each.holds is None), None)
    if unsure is not None:
        why = f"{unsure.rung}: {unsure.why}"
        return Verdict(state=DmaState.UNSURE, why=why, steps=steps, need=need)
    why = "no rung that may be tried holds"
    return Verdict(state=DmaState.IMPOSSIBLE, why=why, steps=steps, need=need)


def _less(offer: Offer, verdict: Verdict) -> Offer:
    """Return the offer without what somebody is to get."""
    step = verdict.step
    if step is None:
        return offer
    if step.span is not None:
        return _less_at_boot(offer, verdict)
    taken = {**offer.taken, step.key: offer.taken.get(step.key, 0) + step.takes}
    return dataclasses.replace(offer, taken=taken)


def _else_at_boot(verdict: Verdict, offer: Offer) -> tuple[Verdict, Offer]:
    """Return the verdict, and the offer without what is to be had at the next boot should the rung
    that could hold fail: whoever knows that only that boot helps has chosen before.
    """
    last = verdict.steps[-1] if verdict.steps else None
    if last is None or last.span is None or last is verdict.step or verdict.need is None:
        return verdict, offer
    last = at_next_boot(verdict.need, offer)
    if last.span is not None:
        offer = dataclasses.replace(offer, pending=(*offer.pending, last.span))
    return dataclasses.replace(verdict, steps=(*verdict.steps[:-1], last)), offer


def _less_at_boot(offer: Offer, verdict: Verdict) -> Offer:
    """Return the offer without what somebody is to get at the next boot."""
    span = None if verdict.step is None else verdict.step.span
    if span is None:
        return offer
    return dataclasses.replace(offer, pending=(*offer.pending, span))
