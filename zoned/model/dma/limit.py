# SPDX-License-Identifier: Apache-2.0
"""How far a device can reach, and how that is known.

Sources: Documentation/core-api/dma-api-howto.rst ("DMA addressing capabilities"),
Documentation/ABI/testing/sysfs-bus-pci (`dma_mask_bits`, `consistent_dma_mask_bits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned.model.dma.match import closest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.model.dma.device import Device
    from zoned.model.dma.wish import Quirk

MOST_BITS = 64


class LimitSource(StrEnum):
    """Who says how far a device can reach."""

    POLICY = "policy"
    DRIVER = "driver"
    """the masks that its driver has set"""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The highest address that a device can reach; None where nobody knows."""

    mask: int | None = None
    source: LimitSource = LimitSource.UNKNOWN
    place: str = ""
    """of a policy: ``file:line``; of a driver: its name"""
    reason: str = ""
    """what the policy gives as its source; of an unknown limit, why it is not known"""

    @property
    def bits(self) -> int | None:
        """How many address bits that is; None where it is unknown, or no whole number of bits."""
        return None if self.mask is None else mask_bits(self.mask)

    def __str__(self) -> str:
        return "unknown" if self.mask is None else mask_text(self.mask)


def bits_mask(bits: int) -> int:
    """Return the highest address of so many bits."""
    return (1 << bits) - 1


def mask_bits(mask: int) -> int | None:
    """Return how many bits a mask has; None where they are not all ones."""
    return None if mask & (mask + 1) else mask.bit_length()


def mask_text(mask: int) -> str:
    """Return a mask as people read it: ``31 bits``, or ``0xbfffffff``."""
    bits = mask_bits(mask)
    return f"{mask:#x}" if bits is None else f"{bits} bits"


def device_limit(device: Device, quirks: Iterable[Quirk]) -> Limit:
    """Return how far the device reaches: by the quirk of the policy that names it most closely,
    else by its driver's masks, of which the smaller counts.

    Raises DmaContradiction where quirks that name it as closely say different things.
    """
    quirk = closest(
        device, quirks, lambda one, other: one.limit == other.limit, "give it different limits"
    )
    if quirk is None:
        return _by_driver(device)
    return Limit(
        mask=quirk.limit, source=LimitSource.POLICY, place=quirk.place, reason=quirk.reason
    )


def _by_driver(device: Device) -> Limit:
    if device.driver is None:
        # Before a driver says otherwise both masks read 32, and afterwards what it left there.
        return Limit(reason="no driver has it, and no quirk of the policy names it")
    bits = device.mask_bits, device.coherent_bits
    known = [each for each in bits if each is not None and 0 < each <= MOST_BITS]
    if len(known) < len(bits):
        return Limit(reason="the kernel does not tell the masks of its driver")
    return Limit(mask=bits_mask(min(known)), source=LimitSource.DRIVER, place=device.driver)
