# SPDX-License-Identifier: Apache-2.0
"""Memory that is reserved for devices: what the ledger tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoned.model.dma.offer import Span
    from zoned.model.dma.rung import Rung

_OWNER = "dma:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One reservation."""

    name: str
    """of the pool, or of the wish; with ``@ADDRESS`` behind it where each device has its own"""
    rung: Rung
    size: int
    """bytes"""
    mask: int
    """the highest address that it may have"""
    devices: tuple[str, ...] = ()
    """addresses of those that it is for; none while it waits for one"""
    standing: bool = False
    """False while it is being set up or taken down: whoever finds it so takes it down"""
    node: int | None = None
    region: str | None = None
    """the device-dax region that it is a part of"""
    spans: tuple[Span, ...] = ()
    """its physical addresses, ascending, where the rung gives it particular ones"""
    blocks: tuple[int, ...] = ()
    """memory blocks below the limit that were taken for it"""
    above: tuple[int, ...] = ()
    """memory blocks above the limit that were made movable for it"""
    page: int | None = None
    """bytes of each huge page that it is made of"""
    pool: int | None = None
    """huge pages that the node's pool is to have again, should this not come to its end"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A buffer that a program has of a reservation."""

    number: int
    reservation: str
    pid: int
    start_time: int
    """of the process, so that its pid in other hands is not taken for it"""
    uid: int
    size: int
    """bytes"""
    segments: tuple[Span, ...]
    """physical addresses, in the order in which they follow each other in the buffer"""
    ending: bool = False
    """given back, but its memory is not free yet"""
    inode: int | None = None
    """of its file, once the program can have it"""


def dma_owner(name: str) -> str:
    """Return the owner of memory blocks of a reservation."""
    return _OWNER + name


def reservation_of_owner(owner: str) -> str | None:
    """Return the reservation that an owner stands for; None where it is none."""
    return owner.removeprefix(_OWNER) if owner.startswith(_OWNER) else None
