# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of cgroups, whichever kind the machine has.

All groups of zones lie under one parent (`zone`, or `zone.slice`), which is itself unlimited.
Sources: Documentation/admin-guide/cgroup-v2.rst, Documentation/admin-guide/cgroup-v1/,
org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.model.zone import Group, Limits


class CgroupDriver(Protocol):
    """The groups of one machine. Calls may block for as long as the kernel reclaims or migrates.

    Every method raises KernelRefused or ServiceManager where the machine refuses, and leaves
    nothing half made.
    """

    @property
    def kind(self) -> str:
        """``systemd``, ``v2`` or ``v1``."""

    @property
    def parent(self) -> str:
        """The path of the group above all zones, below the cgroup mount, with leading slash."""

    @property
    def protects(self) -> bool:
        """Whether hard protection (memory.min) exists here."""

    def prepare(self) -> None:
        """Make the parent group, with the controllers that zones need enabled down to it.

        Idempotent. Raises Unsupported where the machine has no cpuset or memory controller.
        """

    def retire(self) -> None:
        """Remove the parent group if it has no zone left, and what `prepare` enabled for it."""

    def groups(self) -> tuple[Group, ...]:
        """Return every zone's group, as the kernel shows it now, by name."""

    def group(self, zone: str) -> Group | None:
        """Return one zone's group, or None where there is none."""

    def expected(self, limits: Limits) -> Limits:
        """Return what reading back must show after writing `limits`.

        Sizes are rounded as this kernel rounds them, and what cannot be had here (protection on
        v1, swap limits without swap accounting, no CPU exclusiveness) is dropped.
        """

    def create(self, zone: str, limits: Limits) -> None:
        """Make the group: limits first, then node set and CPUs. It has no members yet.

        On failure the group is removed again. One that exists already, such as a slice that a
        service brought with it, is taken over; on failure that one gets its old values back.
        """

    def change(self, zone: str, limits: Limits) -> None:
        """Write the values that differ from what the kernel shows.

        Raising goes max, high, min; lowering goes min, high, max. `limits.max` is never written
        where the zone uses more than that: BelowUse is raised before anything is written.
        """

    def set_soft_limits(self, zone: str, *, high: int | None, minimum: int) -> None:
        """Write only `high` and `min`, to make room before `max` is lowered. No-op for `high` on
        v1, which has none.
        """

    def reclaim(self, zone: str, size: int) -> bool:
        """Ask the kernel to take back `size` bytes (at most 64 MiB at a time is wise).

        Return False where it could not take back all of it (EAGAIN) or where the kernel has no
        way to ask. v1: `memory.force_empty` is for empty groups only, so a lower limit is tried
        step by step instead (a v1 limit that cannot be met fails with EBUSY and kills nobody).
        """

    def protect_parent(self, minimum: int) -> None:
        """Give the parent the protection that its zones need in sum (bounded by ancestors)."""

    def parent_protection(self) -> int:
        """Return the parent's protection as read back."""

    def attach(self, zone: str, pids: Sequence[int]) -> None:
        """Make processes members of the zone. The kernel moves what pages they still have
        elsewhere.

        Raises NoSuchProcess, KernelThread; TryLater where the zone is frozen.
        """

    def release(self, pids: Sequence[int], former: str | None) -> None:
        """Put members back: into the cgroup `former` (a path as in Group.path, or as /proc/PID/
        cgroup shows it) where that still exists, else outside of any zone (the root group; with
        systemd a scope in system.slice). A group below the parent never counts as `former`.
        Processes that are gone are passed over.
        """

    def location(self, pid: int) -> str | None:
        """Return the cgroup that the process is in (as `release` takes it), None if it is gone."""

    def pids_below(self, cgroup: str) -> tuple[int, ...]:
        """Return the processes in a foreign cgroup and its children. Raises NoSuchCgroup."""

    def foreign_units(self, zone: str) -> tuple[str, ...]:
        """Return the service units that were started inside the zone's slice (systemd only)."""

    def kill(self, zone: str) -> None:
        """Kill every member (SIGKILL) and wait until the group is empty, at most 10 s.

        Raises TryLater where members remain.
        """

    def remove(self, zone: str) -> None:
        """Remove the group. Raises HasMembers where it has any; kills nobody. Gone is fine."""


class UnitDriver(Protocol):
    """Units of the service manager, for adopting a service that runs already (systemd only)."""

    def canonical(self, unit: str) -> str:
        """Return the unit's own name, with its suffix. Raises NoSuchUnit where none is known."""

    def unit_cgroup(self, unit: str) -> str:
        """Return the cgroup of a running unit. Raises NoSuchUnit."""

    def unit_nodes(self, unit: str) -> frozenset[int]:
        """Return the unit's own AllowedMemoryNodes; empty where it has none. Raises NoSuchUnit."""

    def confine_unit(self, unit: str, nodes: frozenset[int]) -> None:
        """Set AllowedMemoryNodes on the running unit; the kernel moves its pages.

        Empty lifts it.
        """

    def place_unit(self, unit: str, zone: str) -> None:
        """Have the unit start in the zone's slice from its next start on (a runtime drop-in)."""

    def unplace_unit(self, unit: str) -> None:
        """Take that drop-in away again. No drop-in is fine."""
