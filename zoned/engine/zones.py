# SPDX-License-Identifier: Apache-2.0
"""Making, resizing and destroying zones: each changes what is wanted, then lets it converge."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.admission import capacities
from zoned.engine.blocks.needs import held_on
from zoned.engine.blocks.size import require_block_size
from zoned.engine.dma.counted import counted_bytes
from zoned.engine.fence.keep import check_fence, fenced_nodes
from zoned.engine.placement import place, place_cpus
from zoned.engine.placement_whole import place_whole
from zoned.errors import (
    HasMembers,
    InPolicy,
    NameTaken,
    NoSuchUnit,
    NoSuchZone,
    UnitInZone,
    ZonedError,
)
from zoned.idset import format_ids
from zoned.kernel.device import near_node
from zoned.kernel.memory_block import read_blocks
from zoned.kernel.node import read_topology
from zoned.model.block import PARKED
from zoned.model.zone import Backing, Origin, Zone, ZoneSpec, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.engine.admission import Capacity
    from zoned.engine.machine import Machine
    from zoned.engine.reconcile import Reconciler
    from zoned.model.topology import Topology


def find_zone(machine: Machine, name: str) -> Zone:
    """Return the zone. Raises NoSuchZone."""
    zone = machine.store.zones.get(name)
    if zone is None:
        names = ", ".join(machine.store.zones) or "none"
        raise NoSuchZone(f"there is no zone {name!r}", hint=f"zones: {names}")
    return zone


def admit(machine: Machine, spec: ZoneSpec, origin: Origin) -> Zone:
    """Return the zone with every choice made. What a zone of that name has now counts as free.

    Raises what placement raises; Unsupported where its backing cannot be had here.
    """
    topology = machine.topology()
    others = [zone for zone in machine.store.zones.values() if zone.name != spec.name]
    capacity = capacities(
        topology,
        machine.policy.reserve,
        others,
        _for_blocks(machine, spec, topology),
        counted_bytes(machine.ledger.touched.reservations.values()),
    )
    near = None
    if spec.near is not None:
        kind, _, rest = spec.near.partition(":")
        if kind == "zone":
            shares = find_zone(machine, rest).shares
            near = max(shares, key=lambda node: (shares[node], -node))
        else:
            near = near_node(machine.root, topology, spec.near)
    unit = 1
    if spec.backing is Backing.BLOCKS:
        unit = require_block_size(machine.root)
        spec = replace(spec, size=-(-spec.size // unit) * unit)
    if spec.backing is Backing.NODE:
        shares = place_whole(spec, topology, capacity, near, others)
        check_fence(machine, fenced_nodes(machine) | frozenset(shares))
    else:
        shares = place(spec, topology, capacity, near, unit)
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


def capacity_of(machine: Machine) -> dict[int, Capacity]:
    """Return what each node with memory has for zones, all zones counted."""
    return capacities(
        read_topology(machine.root),
        machine.policy.reserve,
        machine.store.zones.values(),
        devices=counted_bytes(machine.ledger.touched.reservations.values()),
    )


def _for_blocks(machine: Machine, spec: ZoneSpec, topology: Topology) -> dict[int, int]:
    """Return node -> bytes of blocks that only a zone of backing `blocks` may count on."""
    if spec.backing is not Backing.BLOCKS or topology.block_size is None:
        return {}
    held = machine.ledger.touched.blocks
    blocks = {block.id: block for block in read_blocks(machine.root)}
    parked: dict[int, int] = {}
    for each in held_on(held, PARKED, blocks):
        node = blocks[each.number].node
        if node is not None:
            parked[node] = parked.get(node, 0) + topology.block_size
    return parked


def check_new(machine: Machine, spec: ZoneSpec) -> None:
    """Raise BadName, NameTaken where no zone can be made under the name."""
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


def create(
    machine: Machine, reconciler: Reconciler, spec: ZoneSpec, shares: Iterable[int] | None = None
) -> Zone:
    """Make a zone. Raises BadName, NameTaken, what placement raises, MachineError.

    `shares` is the nodes that were chosen for it before, where that was done. After an error there
    is nothing left of it.
    """
    check_new(machine, spec)
    pinned = spec if shares is None else replace(spec, nodes=format_ids(shares), near=None)
    zone = admit(machine, pinned, Origin.REQUEST)
    zone = replace(zone, spec=replace(spec, size=zone.spec.size))
    machine.store.put(zone)
    try:
        reconciler.converge(zone.name)
    except ZonedError:
        machine.store.drop(zone.name)
        reconciler.run()
        raise
    return zone


def resize(machine: Machine, reconciler: Reconciler, name: str, size: int) -> Zone:
    """Change a zone's size. Raises what `resized` raises, and BelowUse.

    After an error the old size stands.
    """
    old = find_zone(machine, name)
    zone = resized(machine, old, size)
    machine.store.put(zone)
    try:
        reconciler.converge(name)
    except ZonedError:
        machine.store.put(old)
        reconciler.run()
        raise
    return zone


def resized(machine: Machine, old: Zone, size: int) -> Zone:
    """Return a zone as it would be. Raises InPolicy, NoCapacity, BadSize."""
    refuse_policy_zone(old, "resized")
    spec = replace(old.spec, size=size, nodes=format_ids(old.nodes), near=None)
    zone = admit(machine, spec, old.origin)
    return replace(zone, spec=replace(old.spec, size=zone.spec.size), cpus=old.cpus)


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


def has_members(machine: Machine, name: str) -> bool:
    """Return whether anything runs in the zone or is attached to it; True where nobody can tell."""
    try:
        refuse_members(machine, name)
    except ZonedError:
        return True
    return False


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
