# SPDX-License-Identifier: Apache-2.0
"""Admission control: what each node can still give to zones. Pure.

Zones that protect what they use never oversubscribe a node: on each, the sum of their shares
stays within the node's total less the system reserve. Of a node that a zone has for itself,
others get nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.errors import BadSize, NoCapacity, NodeTaken
from zoned.idset import format_ids
from zoned.model.zone import Backing
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zoned.model.policy import SystemReserve
    from zoned.model.topology import Topology
    from zoned.model.zone import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one node has for zones, in bytes."""

    node: int
    total: int
    system: int
    """kept for the system"""
    reserved: int
    """the shares of zones that protect what they use, and what programs have for devices"""
    parked: int = 0
    """held offline, for zones of backing `blocks`; not in the total"""
    master: str | None = None
    """the zone of backing `node` that has the node for itself"""

    @property
    def available(self) -> int:
        """What another zone of backing `reserve` may take; negative where overcommitted."""
        return self.total - self.system - self.reserved


def capacities(
    topology: Topology,
    reserve: SystemReserve,
    zones: Iterable[Zone],
    parked: Mapping[int, int] | None = None,
    devices: Mapping[int, int] | None = None,
) -> dict[int, Capacity]:
    """Return the capacity of every node that has memory. `parked` is node -> bytes, and `devices`
    too: what reservations have of memory that the node still counts.
    """
    reserved = dict(devices or {})
    masters: dict[int, str] = {}
    for zone in zones:
        if zone.spec.backing is Backing.NODE:
            masters |= dict.fromkeys(zone.taken, zone.name)
        if zone.spec.backing.protects:
            for node, share in zone.accounted.items():
                reserved[node] = reserved.get(node, 0) + share
    return {
        node.id: Capacity(
            node=node.id,
            total=node.memory.total or 0,
            system=reserve.of(node.id, node.memory.total or 0),
            reserved=reserved.get(node.id, 0),
            parked=(parked or {}).get(node.id, 0),
            master=masters.get(node.id),
        )
        for node in topology.nodes
        if node.has_memory
    }


def room(capacity: Mapping[int, Capacity], backing: Backing) -> dict[int, int]:
    """Return the bytes that a zone of this backing may be accounted on each node.

    Nodes that a zone has for itself are left out.
    """
    free = {node: each for node, each in capacity.items() if each.master is None}
    if backing is Backing.LIMIT:
        return {node: each.total for node, each in free.items()}
    pool = backing is Backing.BLOCKS
    return {
        node: max(0, each.available + (each.parked if pool else 0)) for node, each in free.items()
    }


def refuse(
    name: str, size: int, nodes: Iterable[int], capacity: Mapping[int, Capacity], backing: Backing
) -> NoCapacity | BadSize | NodeTaken:
    """Return the error that tells, with numbers, why the zone does not fit."""
    nodes = sorted(nodes)
    masters = {node: master for node in nodes if (master := capacity[node].master) is not None}
    if masters:
        listed = ", ".join(f"node {node} zone {master}" for node, master in masters.items())
        return NodeTaken(
            f"zone {name}: these nodes belong to zones of backing node alone: {listed}",
            hint="name other nodes",
        )
    total = sum(capacity[node].total for node in nodes)
    where = f"node {format_ids(nodes)}" if len(nodes) == 1 else f"nodes {format_ids(nodes)}"
    if size > total:
        return BadSize(
            f"zone {name} asks for {format_size(size)}, but {where} has {format_size(total)} in"
            " all",
            hint="take a smaller size, or more nodes; `zonectl topology` tells what each has",
        )
    each = "; ".join(
        f"node {node}: {format_size(capacity[node].total)} total"
        f" - {format_size(capacity[node].system)} system reserve"
        f" - {format_size(capacity[node].reserved)} reserved"
        f" = {format_size(max(0, capacity[node].available))}"
        for node in nodes
    )
    possible = room(capacity, backing)
    return NoCapacity(
        f"zone {name} asks for {format_size(size)}, but {where} can give"
        f" {format_size(sum(possible[node] for node in nodes))} ({each})",
        hint="take a smaller size, other nodes, or backing limit",
    )
