# SPDX-License-Identifier: Apache-2.0
"""Making, resizing and destroying zones: each changes what is wanted, then lets it converge."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.admission import capacities
from zoned.engine.placement import place, place_cpus
from zoned.errors import (
    HasMembers,
    InPolicy,
    NameTaken,
    NoSuchUnit,
    NoSuchZone,
    UnitInZone,
    ZonedError,
)
from zoned.kernel.device import near_node
from zoned.kernel.node import read_topology
from zoned.model.zone import Origin, Zone, ZoneSpec, check_name

if TYPE_CHECKING:
    from zoned.engine.machine import Machine
    from zoned.engine.reconcile import Reconciler


def find_zone(machine: Machine, name: str) -> Zone:
    """Return the zone. Raises NoSuchZone."""
    zone = machine.store.zones.get(name)
    if zone is None:
        names = ", ".join(machine.store.zones) or "none"
        raise NoSuchZone(f"there is no zone {name!r}", hint=f"zones: {names}")
    return zone


def admit(machine: Machine, spec: ZoneSpec, origin: Origin) -> Zone:
    """Return the zone with every choice made. What a zone of that name has now counts as free.

    Raises what placement raises.
    """
    topology = read_topology(machine.root)
    others = [zone for zone in machine.store.zones.values() if zone.name != spec.name]
    capacity = capacities(topology, machine.policy.reserve, others)
    near = None
    if spec.near is not None:
        kind, _, rest = spec.near.partition(":")
        if kind == "zone":
            shares = find_zone(machine, rest).shares
            near = max(shares, key=lambda node: (shares[node], -node))
        else:
            near = near_node(machine.root, topology, spec.near)
    shares = place(spec, topology, capacity, near)
    cpus = place_cpus(spec, shares, topology)
    old = machine.store.zones.get(spec.name)
    return Zone(
        spec=spec,
        shares=shares,
        cpus=cpus,
        origin=origin,
        units=old.units if old else (),
        leaving=old.leaving if old else {},
    )


def create(machine: Machine, reconciler: Reconciler, spec: ZoneSpec) -> Zone:
    """Make a zone. Raises BadName, NameTaken, what placement raises, MachineError.

    After an error there is nothing left of it.
    """
    check_name(spec.name)
    if spec.name in machine.store.zones:
        raise NameTaken(
            f"zone {spec.name} exists already", hint="`zonectl resize` changes its size"
        )
    leftover = machine.groups.group(spec.name)
    if leftover is not None and leftover.pids:
        raise NameTaken(
            f"{leftover.path} exists and has {len(leftover.pids)} members",
            hint="end them, or take another name",
        )
    zone = admit(machine, spec, Origin.REQUEST)
    machine.store.put(zone)
    try:
        reconciler.converge(zone.name)
    except ZonedError:
        machine.store.drop(zone.name)
        reconciler.run()
        raise
    return zone


def resize(machine: Machine, reconciler: Reconciler, name: str, size: int) -> Zone:
    """Change a zone's size. Raises NoSuchZone, InPolicy, NoCapacity, BadSize, BelowUse.

    After an error the old size stands.
    """
    old = find_zone(machine, name)
    refuse_policy_zone(old, "resized")
    spec = replace(old.spec, size=size)
    pinned = replace(spec, nodes=",".join(str(node) for node in sorted(old.nodes)), near=None)
    zone = replace(admit(machine, pinned, old.origin), spec=spec, cpus=old.cpus)
    machine.store.put(zone)
    try:
        reconciler.converge(name)
    except ZonedError:
        machine.store.put(old)
        reconciler.run()
        raise
    return zone


def forget(machine: Machine, reconciler: Reconciler, zone: Zone) -> None:
    """Destroy a zone that has no members. Raises HasMembers, UnitInZone; the zone then stays."""
    refuse_members(machine, zone.name)
    machine.store.drop(zone.name)
    try:
        reconciler.converge(zone.name)
        refuse_members(machine, zone.name)
    except ZonedError:
        machine.store.put(zone)
        reconciler.run()
        raise


def refuse_members(machine: Machine, name: str) -> None:
    """Raise HasMembers or UnitInZone where anything still runs in the zone."""
    refuse_units(machine, name)
    zone = machine.store.zones.get(name)
    if zone is not None and zone.units:
        raise HasMembers(
            f"{', '.join(zone.units)} is attached to zone {name}",
            hint=f"`zonectl detach {name} --unit {zone.units[0]}`, or --drain root",
        )
    group = machine.groups.group(name)
    if group is not None and group.pids:
        pids = ", ".join(map(str, group.pids[:5])) + (" …" if len(group.pids) > 5 else "")
        raise HasMembers(
            f"zone {name} has {len(group.pids)} members (pid {pids})",
            hint="move them out with --drain root, or end them with --kill",
        )


def refuse_units(machine: Machine, name: str) -> None:
    """Raise UnitInZone where a service was started inside the zone.

    One that is attached and still runs outside only belongs to the zone by its drop-in: that goes
    when it is detached.
    """
    units = [
        unit
        for unit in machine.groups.foreign_units(name)
        if not _runs_outside(machine, machine.store.zones.get(name), unit)
    ]
    if units:
        raise UnitInZone(
            f"{', '.join(units)} runs in zone {name} as a unit of its own,"
            " and systemd cannot move a running unit",
            hint=f"`systemctl stop {' '.join(units)}`, or detach it and restart it, or --kill",
        )


def _runs_outside(machine: Machine, zone: Zone | None, unit: str) -> bool:
    group = machine.groups.group(zone.name) if zone else None
    if zone is None or group is None or machine.units is None or unit not in zone.units:
        return False
    try:
        return not f"{machine.units.unit_cgroup(unit)}/".startswith(f"{group.path}/")
    except NoSuchUnit:
        return False


def refuse_policy_zone(zone: Zone, what: str) -> None:
    """Raise InPolicy where the policy would undo it. `what`: "destroyed", for example."""
    if zone.origin is Origin.POLICY:
        raise InPolicy(
            f"zone {zone.name} is defined by the policy, so it cannot be {what} by hand",
            hint="change its file in zones.d, then `zonectl reload`",
        )
