# SPDX-License-Identifier: Apache-2.0
"""Bringing a policy in force: its zones become wanted, those it no longer has do not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.zones import admit, has_members
from zoned.errors import ZonedError
from zoned.model.zone import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from zoned.engine.machine import Machine
    from zoned.model.policy import Policy
    from zoned.model.zone import ZoneSpec


def adopt_policy(
    machine: Machine, policy: Policy, is_busy: Callable[[str], bool] = lambda _: False
) -> dict[str, str]:
    """Make the policy's zones the wanted ones, in its order.

    Return the zones that cannot be placed on this machine, each with the reason. Zones made by
    request stay; a zone whose text did not change keeps the placement that it has.
    `is_busy` tells whether a job works on a zone.
    """
    machine.policy = policy
    names = {spec.name for spec in policy.zones}
    for zone in machine.store.zones.values():
        origin = Origin.POLICY if zone.name in names else Origin.FORMER_POLICY
        if zone.origin not in {Origin.REQUEST, origin}:
            machine.store.put(replace(zone, origin=origin))
    drop_former(machine, is_busy)
    return adopt_zones(machine, names)


def adopt_zones(machine: Machine, names: Collection[str]) -> dict[str, str]:
    """Make these zones of the policy in force wanted ones; return what `adopt_policy` returns."""
    policy = machine.policy
    problems = _adopt_zones(machine, [spec for spec in policy.zones if spec.name in names])
    return {name: f"{policy.sources.get(name, 'policy')}: {why}" for name, why in problems.items()}


def drop_former(machine: Machine, is_busy: Callable[[str], bool]) -> bool:
    """Drop zones that the policy no longer names and that have no members.

    Those with members stay: what they use is still protected, so it has to be counted, and they
    have to be found by whoever wants to move them out. Return whether any zone was dropped.
    """
    gone = [
        zone.name
        for zone in machine.store.zones.values()
        if zone.origin is Origin.FORMER_POLICY
        and not is_busy(zone.name)
        and not has_members(machine, zone.name)
    ]
    for name in gone:
        machine.store.drop(name)
    return bool(gone)


def _adopt_zones(machine: Machine, specs: Sequence[ZoneSpec]) -> dict[str, str]:
    """Adopt one after the other; return those that cannot be, each with the reason.

    One that grows may need the room that a later one gives up, so what did not fit is tried again
    for as long as that helps.
    """
    problems: dict[str, str] = {}
    for spec in specs:
        try:
            why = _adopt_zone(machine, spec)
        except ZonedError as error:
            why = str(error)
        if why:
            problems[spec.name] = why
    if not 0 < len(problems) < len(specs):
        return problems
    return _adopt_zones(machine, [spec for spec in specs if spec.name in problems])


def _adopt_zone(machine: Machine, spec: ZoneSpec) -> str:
    old = machine.store.zones.get(spec.name)
    if old is not None and old.origin is Origin.REQUEST:
        return "a zone of that name was made by hand; destroy it first"
    if old is None or old.spec != spec:
        machine.store.put(admit(machine, spec, Origin.POLICY))
    return ""
