# SPDX-License-Identifier: Apache-2.0
"""Bringing a policy in force: its zones become wanted, those it no longer has do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.zones import admit
from zoned.errors import ZonedError
from zoned.model.zone import Origin

if TYPE_CHECKING:
    from zoned.engine.machine import Machine
    from zoned.model.policy import Policy
    from zoned.model.zone import ZoneSpec


def adopt_policy(machine: Machine, policy: Policy) -> dict[str, str]:
    """Make the policy's zones the wanted ones, in its order.

    Return the zones that cannot be placed on this machine, each with the reason. Zones made by
    request stay; a zone whose text did not change keeps the placement that it has.
    """
    machine.policy = policy
    names = {spec.name for spec in policy.zones}
    for zone in list(machine.store.zones.values()):
        if zone.origin is Origin.POLICY and zone.name not in names:
            machine.store.drop(zone.name)
    problems = {}
    for spec in policy.zones:
        try:
            why = _adopt_zone(machine, spec)
        except ZonedError as error:
            why = str(error)
        if why:
            problems[spec.name] = f"{policy.sources.get(spec.name, 'policy')}: {why}"
    return problems


def _adopt_zone(machine: Machine, spec: ZoneSpec) -> str:
    old = machine.store.zones.get(spec.name)
    if old is not None and old.origin is Origin.REQUEST:
        return "a zone of that name was made by hand; destroy it first"
    if old is None or old.spec != spec:
        machine.store.put(admit(machine, spec, Origin.POLICY))
    return ""
