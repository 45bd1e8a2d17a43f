# SPDX-License-Identifier: Apache-2.0
"""What the engine can do to the machine. Plan, log and execution share the same list of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from zoned.idset import format_ids
from zoned.units import format_size

if TYPE_CHECKING:
    from zoned.model.zone import Limits


def _describe_limits(limits: Limits) -> str:
    parts = [f"max {format_size(limits.max)}", f"min {format_size(limits.min)}"]
    if limits.swap is not None:
        parts.append(f"swap {format_size(limits.swap)}")
    if limits.mems is not None:
        parts.append(f"nodes {format_ids(limits.mems)}")
    if limits.cpus is not None:
        parts.append(f"CPUs {format_ids(limits.cpus)}")
    if limits.exclusive_cpus:
        parts.append("exclusive CPUs")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareParent:
    """Make sure of the group above all zones, and of the controllers they need."""

    def describe(self) -> str:
        return "prepare the group above all zones"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectParent:
    """Give the group above all zones the protection that they need in sum."""

    minimum: int

    def describe(self) -> str:
        return f"protect {format_size(self.minimum)} for all zones together"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateGroup:
    """Make a zone's group."""

    zone: str
    limits: Limits

    def describe(self) -> str:
        return f"make zone {self.zone}: {_describe_limits(self.limits)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeGroup:
    """Write a zone's limits again, where the kernel shows others."""

    zone: str
    limits: Limits

    def describe(self) -> str:
        return f"set zone {self.zone}: {_describe_limits(self.limits)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveGroup:
    """Remove the group of a zone that is not wanted any more. It has no members."""

    zone: str

    def describe(self) -> str:
        return f"remove zone {self.zone}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireParent:
    """Remove the group above all zones when no zone is left."""

    def describe(self) -> str:
        return "remove the group above all zones"


Action: TypeAlias = (
    PrepareParent | ProtectParent | CreateGroup | ChangeGroup | RemoveGroup | RetireParent
)
