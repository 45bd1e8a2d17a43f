# SPDX-License-Identifier: Apache-2.0
"""What has to be done so that the machine has the zones that are wanted. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.derive import limits_of
from zoned.model.action import (
    Action,
    ChangeGroup,
    CreateGroup,
    PrepareParent,
    ProtectParent,
    RemoveGroup,
    RetireParent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from zoned.model.zone import Group, Limits, Zone


def plan(
    zones: Mapping[str, Zone],
    groups: Mapping[str, Group],
    *,
    made: Collection[str],
    parent_made: bool,
    parent_protection: int,
    expected: Callable[[Limits], Limits],
) -> list[Action]:
    """Return the actions in the order in which they must run.

    `made` names the groups that the ledger says are ours, `expected` tells what the kernel shows
    after writing limits. The parent's protection rises before any zone's and falls after; in
    between it is enough for any part of the changes, in case the others fail.
    Groups that are not ours, or that have members, are left alone: verification reports them.
    """
    changes = [
        action
        for zone in zones.values()
        if (action := _for_zone(zone, groups.get(zone.name), expected)) is not None
    ]
    removals = [
        RemoveGroup(zone=name)
        for name in sorted(groups)
        if name not in zones and name in made and not groups[name].pids
    ]
    actions: list[Action] = []
    if zones and (not parent_made or any(isinstance(each, CreateGroup) for each in changes)):
        actions.append(PrepareParent())
    before, after = _protection(zones, groups, removals, expected)
    if before > parent_protection:
        actions.append(ProtectParent(minimum=before))
    actions += [*changes, *removals]
    if not zones and parent_made and len(removals) == len(groups):
        return [*actions, RetireParent()]
    if after < max(before, parent_protection):
        actions.append(ProtectParent(minimum=after))
    return actions


def _protection(
    zones: Mapping[str, Zone],
    groups: Mapping[str, Group],
    removals: Iterable[RemoveGroup],
    expected: Callable[[Limits], Limits],
) -> tuple[int, int]:
    """Return what the parent must protect while changes are made, and once they are."""
    present = {name: group.limits.min for name, group in groups.items()}
    wanted = {zone.name: expected(limits_of(zone)).min for zone in zones.values()}
    both = {name: max(present.get(name, 0), wanted.get(name, 0)) for name in present | wanted}
    left = present | wanted | {removal.zone: 0 for removal in removals}
    return sum(both.values()), sum(left.values())


def _for_zone(
    zone: Zone, group: Group | None, expected: Callable[[Limits], Limits]
) -> CreateGroup | ChangeGroup | None:
    limits = limits_of(zone)
    if group is None:
        return CreateGroup(zone=zone.name, limits=limits)
    if group.limits != expected(limits):
        return ChangeGroup(zone=zone.name, limits=limits)
    return None
