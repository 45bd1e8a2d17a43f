# SPDX-License-Identifier: Apache-2.0
"""Jobs: operations that take long enough to be watched, paused and cancelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobKind(StrEnum):
    """What a job does."""

    MIGRATE = "migrate"
    MOVE = "move"
    ATTACH = "attach"
    DETACH = "detach"
    DESTROY = "destroy"
    CREATE = "create"
    RESIZE = "resize"
    FILL = "fill"
    """get the memory blocks that a zone lacks, after a reboot for example"""
    PARK = "park"
    UNPARK = "unpark"
    OFFLINE = "offline"
    """park memory blocks that were named"""
    ONLINE = "online"
    """bring parked memory blocks that were named back"""
    BASE_ADD = "base-add"
    BASE_REMOVE = "base-remove"
    GIVE_BACK = "give-back"
    """bring memory blocks that nobody wants any more back to how they were found"""
    DMA_RESERVE = "dma-reserve"
    """get a device memory that it can reach"""
    DMA_RELEASE = "dma-release"

    @property
    def changes_blocks(self) -> bool:
        """Whether memory blocks may change hands during such a job."""
        return self not in {JobKind.MIGRATE, JobKind.ATTACH, JobKind.DETACH}


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    PARTIAL = "partial"
    """it came to its end, and pages are left where they should not be"""
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """the daemon ended during it, and it could not be taken up again"""

    @property
    def is_over(self) -> bool:
        return self not in {JobState.QUEUED, JobState.RUNNING, JobState.PAUSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What was asked for: enough to take the job up again after a restart.

    `parameters` are plain data (what JSON can hold), named as in the varlink method.
    """

    kind: JobKind
    what: str
    """for people, e.g. "attach pid 4711 to zone db" """
    zones: tuple[str, ...] = ()
    """zones that nobody else may change meanwhile"""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job failed: the fields of a ZonedError."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is. Sizes are bytes; `outcomes` leaves out what is zero."""

    phase: str = ""
    total: int = 0
    """bytes to move, as far as they are known by now"""
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    processes: int = 0
    gone: int = 0
    """processes that ended meanwhile"""
    longest_call: float = 0.0
    """seconds of the longest single call of the kernel, for which a page could not be used"""
    notes: tuple[str, ...] = ()
    foreign: int | None = None
    """bytes that the zone's members use and that are charged elsewhere, once that is known"""

    @property
    def done(self) -> int:
        """Bytes that were dealt with."""
        waiting = {Outcome.THERE}
        return min(
            self.total, sum(size for what, size in self.outcomes.items() if what not in waiting)
        )

    @property
    def left_behind(self) -> int:
        """Bytes that stay where they should not be."""
        return sum(size for what, size in self.outcomes.items() if what.is_left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as it is at this moment. Times are seconds since the epoch."""

    id: int
    request: JobRequest
    uid: int
    """who asked for it"""
    state: JobState = JobState.QUEUED
    progress: Progress = Progress()
    created: float
    started: float | None = None
    ended: float | None = None
    rate: float | None = None
    """bytes a second, lately; None where nothing moves"""
    error: JobError | None = None

    @property
    def eta(self) -> float | None:
        """Seconds until all is moved, at the present rate."""
        if not self.rate or self.state is not JobState.RUNNING:
            return None
        return (self.progress.total - self.progress.done) / self.rate
