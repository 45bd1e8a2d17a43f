# SPDX-License-Identifier: Apache-2.0
"""Buffers of reserved memory, as they travel over the socket. Sizes and addresses in bytes.

The library reads annotations at import, so they stay real objects here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentInfo:
    """A part of a buffer that lies at consecutive physical addresses."""

    address: int
    """physical"""
    size: int
    offset: int | None
    """where in the file it begins; not told in lists"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseInfo:
    """A buffer that a program has."""

    number: int
    reservation: str
    pid: int
    uid: int
    user: str
    size: int
    segments: list[SegmentInfo]
    """in the order in which they follow each other in the buffer"""
    ending: bool
    """given back, but its memory is not free yet"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolInfo:
    """How much of a reservation is lent. None is unknown."""

    reservation: str
    rung: str
    size: int
    leased: int
    free: int | None
    largest: int | None
    """the longest run of free addresses"""
    runs: int | None
    fragmentation: float | None
    """the share of what is free that lies outside of the longest run: 0 to 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesInfo:
    """All buffers that the caller may see, and the reservations that lend memory."""

    leases: list[LeaseInfo]
    pools: list[PoolInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferInfo:
    """A buffer as its program gets it."""

    lease: LeaseInfo
    granule: int
    """what offsets and lengths of mappings of the file are multiples of"""
    file: int
    """index of the file's descriptor among those that come with the reply"""
    dmabuf: int | None
    """index of the dma-buf's descriptor"""
