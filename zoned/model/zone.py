# SPDX-License-Identifier: Apache-2.0
"""Derived zones: what is wanted, what was decided, and what the kernel shows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned.errors import BadName

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def is_name(text: str) -> bool:
    """Return whether a zone, a reservation or a pool may be called that."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Return `name` if a zone may be called that. Raises BadName."""
    if not is_name(name):
        raise BadName(
            f"{name!r} is no name for a zone",
            hint="1 to 63 characters of a-z 0-9 . _ -, the first a letter or digit",
        )
    return name


class Backing(StrEnum):
    """How firmly a zone's memory is set aside."""

    LIMIT = "limit"
    RESERVE = "reserve"
    BLOCKS = "blocks"
    NODE = "node"

    @property
    def protects(self) -> bool:
        """Whether what the zone uses may not be taken away again."""
        return self is not Backing.LIMIT

    @property
    def is_slow(self) -> bool:
        """Whether making such a zone moves memory of others, which takes its time."""
        return self in {Backing.BLOCKS, Backing.NODE}


class Origin(StrEnum):
    """Who asked for a zone."""

    POLICY = "policy"
    REQUEST = "request"
    FORMER_POLICY = "former-policy"
    """a policy that does not name it any more: the zone goes with its last member"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneSpec:
    """What a user asks for, before any look at the machine. Sizes are bytes."""

    name: str
    size: int
    nodes: str | None = None
    """a list as numactl writes it; None where `near` chooses or all nodes will do"""
    near: str | None = None
    backing: Backing = Backing.RESERVE
    cpus: str = "local"
    """``local``, ``none`` or a list"""
    exclusive_cpus: bool = False
    swap: int | None = 0
    """the most that may be swapped out; 0 is none, None is no limit"""
    users: tuple[str, ...] = ()
    """who besides root may run programs in the zone"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A zone that was admitted: every choice made, so that it stays as it is over a restart."""

    spec: ZoneSpec
    shares: Mapping[int, int]
    """node -> bytes accounted there; the sum is the zone's size"""
    cpus: frozenset[int] | None
    """None where the zone does not confine CPUs"""
    origin: Origin = Origin.REQUEST
    units: tuple[str, ...] = ()
    """units of the service manager that start in this zone"""
    leaving: Mapping[int, int] = field(default_factory=dict)
    """nodes that its members may still use while their pages move away from there, each with the
    bytes that are accounted there until then; none on a node that is lent for the time of a job"""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def nodes(self) -> frozenset[int]:
        return frozenset(self.shares)

    @property
    def mems(self) -> frozenset[int]:
        """The nodes that members may use at the moment."""
        return self.nodes | frozenset(self.leaving)

    @property
    def taken(self) -> frozenset[int]:
        """The nodes that are the zone's at the moment, without those that it is only lent."""
        return self.nodes | frozenset(node for node, size in self.leaving.items() if size)

    @property
    def accounted(self) -> Mapping[int, int]:
        """Node -> bytes that are set aside there at the moment."""
        return {
            node: max(self.shares.get(node, 0), self.leaving.get(node, 0)) for node in self.mems
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The values that make a group a zone. None means "no limit" or "not confined"."""

    max: int | None = None
    high: int | None = None
    min: int = 0
    swap: int | None = None
    mems: frozenset[int] | None = None
    cpus: frozenset[int] | None = None
    exclusive_cpus: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """How often the kernel did something to a zone since it was made (memory.events)."""

    oom: int | None = None
    oom_kill: int | None = None
    max: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Share of time in which some, or all, tasks of a zone waited for memory, in percent."""

    some_10s: float
    some_60s: float
    full_10s: float
    full_60s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What the kernel shows of the cgroup behind a zone. Sizes are bytes; None is "unknown"."""

    zone: str
    path: str
    """below the cgroup mount, with a leading slash"""
    limits: Limits
    """as read back"""
    effective_mems: frozenset[int] | None = None
    used: int | None = None
    anon: int | None = None
    peak: int | None = None
    swap_used: int | None = None
    by_node: Mapping[int, int] = field(default_factory=dict)
    """node -> bytes charged to this zone there"""
    events: Events = Events()
    pressure: Pressure | None = None
    pids: tuple[int, ...] = ()
