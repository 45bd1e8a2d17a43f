# SPDX-License-Identifier: Apache-2.0
"""Where a zone goes: its nodes, how much is accounted on each, and its CPUs. Pure.

With a list of nodes the size is spread evenly over them; near something, the nearest nodes are
filled first; with neither, the node with the most room takes all of it if it can, unless it has
only movable memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.admission import refuse, room
from zoned.engine.kernel_memory import kernel_nodes, require_normal_memory
from zoned.errors import BadList, UnknownNode
from zoned.idset import format_ids, select_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zoned.engine.admission import Capacity
    from zoned.model.topology import Node, Topology
    from zoned.model.zone import ZoneSpec


def by_distance(topology: Topology, start: int) -> list[int]:
    """Return the nodes with memory, nearest to `start` first, ties by number.

    Distances that are not known count as farther than any that is.
    """
    origin = topology.node(start)
    distances = origin.distances if origin else {}
    return sorted(
        topology.memory_nodes,
        key=lambda node: (distances.get(node, 1 << 16) if node != start else 0, node),
    )


def spread_evenly(size: int, limits: Mapping[int, int]) -> dict[int, int] | None:
    """Split `size` over nodes as evenly as their room allows; None where it does not fit."""
    if size > sum(limits.values()):
        return None
    shares: dict[int, int] = {}
    left = size
    by_room = sorted(limits, key=lambda node: (limits[node], node))
    for index, node in enumerate(by_room):
        fair = -(-left // (len(by_room) - index))
        shares[node] = min(fair, limits[node])
        left -= shares[node]
    return dict(sorted(shares.items()))


def fill_in_order(size: int, order: Iterable[int], limits: Mapping[int, int]) -> dict[int, int]:
    """Take `size` from the first nodes in `order`; what does not fit is left out."""
    shares: dict[int, int] = {}
    for node in order:
        take = min(size - sum(shares.values()), limits[node])
        if take > 0:
            shares[node] = take
    return shares


def chosen_nodes(text: str, topology: Topology) -> frozenset[int]:
    """Return the nodes that a user's list names. Raises UnknownNode, BadList."""
    nodes = select_ids(text, topology.memory_nodes)
    strangers = nodes - topology.memory_nodes
    if strangers:
        known = {node.id for node in topology.nodes}
        why = "has no memory" if strangers <= known else "does not exist"
        raise UnknownNode(
            f"node {format_ids(strangers)} {why}",
            hint=f"nodes with memory: {format_ids(topology.memory_nodes)}",
        )
    return nodes


def place(
    spec: ZoneSpec,
    topology: Topology,
    capacity: Mapping[int, Capacity],
    near: int | None = None,
    unit: int = 1,
) -> dict[int, int]:
    """Return the zone's shares, node -> bytes, summing to its size; each a multiple of `unit`.

    `near` is the node that `spec.near` resolved to. Raises UnknownNode, BadList, NoCapacity,
    BadSize, MovableOnly, NodeTaken.
    """
    limits = {node: size // unit for node, size in room(capacity, spec.backing).items()}
    size = -(-spec.size // unit)
    if spec.nodes is not None:
        nodes = chosen_nodes(spec.nodes, topology)
        shares = spread_evenly(size, {node: limits[node] for node in nodes if node in limits})
        if not nodes <= limits.keys():
            raise refuse(spec.name, spec.size, nodes, capacity, spec.backing)
    elif near is not None:
        nodes = frozenset(limits)
        order = [node for node in by_distance(topology, near) if node in limits]
        shares = fill_in_order(size, order, limits)
    else:
        nodes = frozenset(limits)
        usable = {node: limits[node] for node in nodes & kernel_nodes(topology)}
        shares = _most_room(size, usable) or spread_evenly(size, limits)
    if not shares or sum(shares.values()) < size:
        raise refuse(spec.name, spec.size, nodes, capacity, spec.backing)
    require_normal_memory(spec.name, shares, topology)
    return {node: share * unit for node, share in shares.items()}


def _most_room(size: int, limits: Mapping[int, int]) -> dict[int, int] | None:
    fitting = [node for node in limits if limits[node] >= size]
    if not fitting:
        return None
    return {min(fitting, key=lambda node: (-limits[node], node)): size}


def place_cpus(spec: ZoneSpec, nodes: Iterable[int], topology: Topology) -> frozenset[int] | None:
    """Return the zone's CPUs, or None where it does not confine them.

    `local` is the CPUs of the zone's nodes; nodes without CPUs take those of the nearest node that
    has some. Raises BadList.
    """
    if spec.cpus == "none":
        return None
    if spec.cpus == "local":
        return _local_cpus(nodes, topology)
    every = frozenset(cpu for node in topology.nodes for cpu in node.cpus or ())
    cpus = select_ids(spec.cpus, every)
    if every and cpus - every:
        raise BadList(
            f"CPU {format_ids(cpus - every)} does not exist", hint=f"CPUs: {format_ids(every)}"
        )
    return cpus


def _local_cpus(nodes: Iterable[int], topology: Topology) -> frozenset[int] | None:
    chosen = [node for node in topology.nodes if node.id in set(nodes)]
    cpus = frozenset(cpu for node in chosen for cpu in _cpus_near(node, topology))
    return cpus or None


def _cpus_near(node: Node, topology: Topology) -> frozenset[int]:
    if node.cpus:
        return node.cpus
    others = [other for other in topology.nodes if other.cpus]
    nearest = min(
        others, key=lambda other: (node.distances.get(other.id, 1 << 16), other.id), default=None
    )
    return nearest.cpus or frozenset() if nearest else frozenset()
