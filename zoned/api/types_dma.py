# SPDX-License-Identifier: Apache-2.0
"""What travels over the socket of memory for devices. As `zoned.api.types`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanInfo:
    """A range of physical addresses, in bytes."""

    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationInfo:
    """Memory that is wanted for devices, or reserved for them."""

    name: str
    wish: str
    """the name in the policy, or that was given by hand"""
    by_hand: bool
    devices: list[str]
    """addresses of those that it is for; none while it waits for one"""
    size: int
    limit: int | None
    """the highest address that it may have, as far as there are so many bits in a JSON number"""
    state: str
    """as in `zonectl dma list`"""
    rung: str | None
    """the one that holds, or that could"""
    reserved: int
    why: str
    error: str
    hint: str
    at_boot: SpanInfo | None
    """what to set aside at the next boot, where only that helps"""
    booted: bool
    """whether this boot has done so, and only a region is to be made of it"""
    standing: bool
    node: int | None
    region: str | None
    spans: list[SpanInfo]
    blocks: list[int]
    above: list[int]
    """memory blocks above the limit that were made movable for it"""
    page: int | None
    """bytes of each huge page"""
    job: int | None
    """that works on it"""
