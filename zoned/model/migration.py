# SPDX-License-Identifier: Apache-2.0
"""What becomes of pages: how they are counted, and what a look tells before any of them moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Outcome(StrEnum):
    """What became of a page that was asked to be on another node. Counted in bytes."""

    MOVED = "moved"
    THERE = "there"
    """it was on a target node already"""
    BUSY = "busy"
    """the kernel refused it each time: under I/O, locked, or off its lists for the moment"""
    ABSENT = "absent"
    """no longer mapped, or not the kernel's to move (a device's memory, the zero page)"""
    SHARED = "shared"
    """mapped by processes that were not to be moved, too"""
    NO_MEMORY = "no-memory"
    """the target node had no page of that size to give"""
    PINNED = "pinned"
    """somebody holds it where it is: a device, io_uring, a pipe"""
    GONE = "gone"
    """its process ended meanwhile"""

    @property
    def is_left(self) -> bool:
        """Whether the page still is where it should not be."""
        return self in {Outcome.BUSY, Outcome.SHARED, Outcome.NO_MEMORY, Outcome.PINNED}


class Kind(StrEnum):
    """What a resident page is. Each byte has one kind."""

    ANONYMOUS = "anonymous"
    FILE = "file"
    """of a file, or of memory that processes share (shmem)"""
    THP = "thp"
    """part of a transparent huge page or other large folio, of whatever memory"""
    HUGETLB = "hugetlb"


class Sharing(StrEnum):
    """Which pages that are mapped more than once may be moved."""

    JOB = "job"
    """those that only processes of the same job map"""
    MEMORY = "memory"
    """all but those of programs and libraries (mappings of files that may be executed)"""
    ALL = "all"
    """all: what the kernel does itself when a process enters a cpuset"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """What one node can take, in bytes."""

    node: int
    free: int
    """free now, above what the kernel keeps for itself"""
    reclaimable: int
    """file cache that the kernel gives up for it"""
    promised: int
    """of that: promised to zones that do not use it yet"""
    pool: int = 0
    """free pages of the hugetlb pools: for hugetlb pages alone"""

    @property
    def room(self) -> int:
        return max(0, self.free + self.reclaimable - self.promised)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Where the pages of some processes are, and what a move would do. Sizes are bytes.

    A page that several of the processes map counts once.
    """

    processes: int
    by_node: Mapping[int, Mapping[Kind, int]] = field(default_factory=dict)
    shared: int = 0
    """of all: mapped more than once"""
    locked: int = 0
    """of all: locked into memory (mlock); they move all the same"""
    to_move: int = 0
    huge: int = 0
    """of what is to move: hugetlb pages"""
    stays: Mapping[Outcome, int] = field(default_factory=dict)
    """what is on the wrong node and cannot move, by reason"""
    rooms: tuple[NodeRoom, ...] = ()
    """what the target nodes can take"""
    seconds: float | None = None
    """how long the move should take; None where that cannot be told"""

    @property
    def fits(self) -> bool:
        """Whether the targets have room for what is to move."""
        return fits(self.to_move, self.huge, self.rooms)


def fits(size: int, huge: int, rooms: Iterable[NodeRoom]) -> bool:
    """Tell whether `size` bytes find room, of which `huge` are hugetlb pages.

    Those take pages of the pools first, and of free memory what these lack.
    """
    rooms = tuple(rooms)
    pooled = min(huge, sum(each.pool for each in rooms))
    return size - pooled <= sum(each.room for each in rooms)
