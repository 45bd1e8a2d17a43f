# SPDX-License-Identifier: Apache-2.0
"""Memory blocks in zoned's hands: who holds one, what lies in it, and whether it could go."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.model.topology import Block

BASE = "base"
"""The owner of memory that no zone holds."""
PARKED = "parked"
"""The owner of blocks that are held offline, in no zone's hands."""
RETURNING = "returning"
"""The owner of blocks on their way back to where they were found."""
CHANGING = "changing"
"""The owner of blocks of a base zone that a job takes away, or makes movable."""
_ZONE = "zone:"

MOVABLE = "Movable"
"""The kernel's zone whose pages can all be moved away, so that its blocks can go offline."""

SLAB = "slab"
PAGE_TABLES = "page tables"
RESERVED = "reserved"
"""Set aside at boot, or beyond the kernel's own management."""
BALLOONED = "ballooned"
"""A driver's that may let go of it when the block goes: a balloon's, or virtio-mem's."""
GIGANTIC = "gigantic pages"
"""Of hugetlb pools, too large for the kernel to find another place for."""
OTHER = "other"
"""The kernel's or a driver's."""
PLAIN = "plain"
"""Without any mark: the kernel's, or free and kept at hand by a CPU."""


def zone_owner(zone: str) -> str:
    """Return the owner of the blocks of a zone."""
    return _ZONE + zone


def zone_of_owner(owner: str) -> str | None:
    """Return the zone that an owner stands for; None where it is no zone."""
    return owner.removeprefix(_ZONE) if owner.startswith(_ZONE) else None


class BlockWord(StrEnum):
    """What can be written to a block's `state` (memory-hotplug.rst)."""

    OFFLINE = "offline"
    ONLINE = "online"
    KERNEL = "online_kernel"
    MOVABLE = "online_movable"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBlock:
    """A block that zoned has taken, or is about to take."""

    number: int
    owner: str
    former: str | None
    """the kernel's zone that it was in, e.g. ``Normal``; None where it was offline"""
    home: str = BASE
    """whose it is again when its owner gives it up: `BASE` or `PARKED`"""
    emptied: bool = False
    """whether it was offline in its owner's hands, and is online again or about to be"""
    parked_by: str = ""
    """the request that parked it, so that one that is taken up again does not do so twice"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPages:
    """What the pages of one block are, counted in pages of the base size."""

    total: int
    free: int = 0
    movable: int = 0
    """used, and can be moved: of processes, of files"""
    huge: int = 0
    """of hugetlb pools, whether in use or not"""
    unmovable: Mapping[str, int] = field(default_factory=dict)
    """kind -> pages that keep the block, e.g. `SLAB`"""
    holes: int = 0
    """frames that are no memory"""
    owners: Mapping[int, int] = field(default_factory=dict)
    """inode of a cgroup -> bytes charged to it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Whether a block can go offline, as far as that can be told beforehand."""

    block: Block
    can: bool | None
    """None where it cannot be told"""
    why: str = ""
    """what keeps it, or why that is not known; empty where it can go"""
    pages: BlockPages | None = None
