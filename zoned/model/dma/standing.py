# SPDX-License-Identifier: Apache-2.0
"""Reservations that there are already: what they leave of the machine for others, and whose memory
goes by which name. Pure.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from zoned.model.dma.offer import CMA_KEY, LOW_KEY
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from zoned.model.dma.held import Held
    from zoned.model.dma.offer import Offer
    from zoned.model.dma.wish import Wish


def less_held(offer: Offer, held: Iterable[Held]) -> Offer:
    """Return the offer without what reservations have of it already."""
    taken = dict(offer.taken)
    blocks: set[int] = set()
    for each in held:
        blocks |= {*each.blocks, *each.above}
        key, size = _taken(each)
        if size:
            taken[key] = taken.get(key, 0) + size
    left = tuple(each for each in offer.low_blocks if each.block.id not in blocks)
    return dataclasses.replace(offer, taken=taken, low_blocks=left)


def _taken(held: Held) -> tuple[str, int]:
    """Return what of the offer a reservation is a part of, and how much of that."""
    match held.rung:
        case Rung.DEVDAX if held.region:
            return held.region, sum(span.size for span in held.spans) or held.size
        case Rung.CMA:
            return CMA_KEY, held.size
        case Rung.LOWMEM:
            return LOW_KEY, held.size
        case Rung.BLOCKS if held.devices:
            # Given to the kernel they are free low memory like any other.
            return LOW_KEY, held.size
    return "", 0


def own_name(wish: Wish, address: str) -> str:
    """Return the name of what one device has for itself."""
    return f"{wish.name}@{address}"


def first_of(wish: Wish, addresses: Collection[str], held: Mapping[str, Held]) -> str | None:
    """Return which of the devices of a wish has the memory that is held while none is there.

    The one that has it keeps it; else the first that has none of its own.
    """
    waiting = held.get(wish.name)
    if waiting is not None:
        having = [address for address in waiting.devices if address in addresses]
        if having:
            return having[0]
    return next((each for each in addresses if own_name(wish, each) not in held), None)


def fits(held: Held, *, size: int, mask: int, rungs: Collection[Rung]) -> bool:
    """Return whether a reservation is what is wanted now, whichever devices it is for."""
    return held.size == size and held.mask <= mask and held.rung in rungs
