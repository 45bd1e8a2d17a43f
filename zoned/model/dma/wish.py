# SPDX-License-Identifier: Apache-2.0
"""What the policy says of devices: how far some reach, and what memory is wanted for some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.model.dma.match import Match, closest
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.model.dma.device import Device

USUAL_PRIORITY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirk:
    """How far some devices really reach."""

    match: Match
    limit: int
    """the highest address, in bytes"""
    place: str = ""
    """``file:line``"""
    reason: str = ""
    """where that is written, in the policy's words"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Memory that is to be reserved for some devices."""

    name: str
    match: Match
    size: int
    """bytes: for each device, or for all that share the pool"""
    limit: int | None = None
    """the highest address it may have, where that is less than the devices' own limit, or theirs is
    not known"""
    pool: str | None = None
    """the name of the pool that the devices share, with those of other wishes of this pool"""
    hold: bool = False
    """whether it is there while no such device is"""
    rungs: tuple[Rung, ...] = tuple(Rung)
    """those that may be tried, in the ladder's order"""
    priority: int = USUAL_PRIORITY
    """0 to 100: who comes first where low memory is short"""
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """who besides root may have buffers of it, by name"""
    place: str = ""
    """``file:line``"""

    @property
    def insists(self) -> bool:
        """Whether memory is wanted also where an IOMMU makes that needless."""
        return Rung.IOMMU not in self.rungs


@dataclass(frozen=True, slots=True, kw_only=True)
class DmaPolicy:
    """Everything that the policy files say of devices, in their order."""

    quirks: tuple[Quirk, ...] = ()
    wishes: tuple[Wish, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessees:
    """Who besides root may have buffers of a reservation."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def lessees(policy: DmaPolicy, reservation: str) -> Lessees:
    """Return who may have buffers: nobody of a reservation that the policy does not know.

    `reservation` is the name of a pool or of a wish, with ``@ADDRESS`` where each device has its
    own.
    """
    name = reservation.partition("@")[0]
    for wish in policy.wishes:
        if name == (wish.pool or wish.name):
            return Lessees(users=wish.users, groups=wish.groups)
    return Lessees()


def device_wish(device: Device, wishes: Iterable[Wish]) -> Wish | None:
    """Return what is wanted for the device, by the wish that names it most closely.

    Raises DmaContradiction where several name it as closely.
    """
    return closest(device, wishes, lambda one, other: one == other, "both want memory for it")
