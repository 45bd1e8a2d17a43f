# SPDX-License-Identifier: Apache-2.0
"""Where a zone goes that has its nodes for itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.admission import refuse, room
from zoned.engine.kernel_memory import kernel_nodes, require_normal_memory
from zoned.engine.placement import by_distance, chosen_nodes, spread_evenly
from zoned.errors import NodeTaken
from zoned.idset import format_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zoned.engine.admission import Capacity
    from zoned.model.topology import Topology
    from zoned.model.zone import Zone, ZoneSpec


def place_whole(
    spec: ZoneSpec,
    topology: Topology,
    capacity: Mapping[int, Capacity],
    near: int | None,
    others: Iterable[Zone],
) -> dict[int, int]:
    """Return the shares of a zone of backing `node`, node -> bytes, summing to its size.

    Without a list of nodes, free ones are taken until they have the size together: the nearest
    first, else the last ones, because the first has the memory that devices need, but those with
    only movable memory at the very end.

    Raises UnknownNode, BadList, NodeTaken, NoCapacity, BadSize, MovableOnly.
    """
    limits = room(capacity, spec.backing)
    users = _users(others)
    if spec.nodes is not None:
        nodes = chosen_nodes(spec.nodes, topology)
        _refuse_shared(spec.name, nodes, users)
    else:
        order = _last_first(limits, topology) if near is None else by_distance(topology, near)
        free = [node for node in order if node in limits and node not in users]
        if not free:
            raise NodeTaken(
                f"zone {spec.name} is to have nodes for itself, but other zones are on all of them",
                hint="zonectl move or destroy some of them",
            )
        nodes = _enough(spec.size, free, limits)
    _refuse_all(spec.name, nodes, topology)
    shares = spread_evenly(spec.size, {node: limits.get(node, 0) for node in nodes})
    if not shares:
        raise refuse(spec.name, spec.size, nodes, capacity, spec.backing)
    require_normal_memory(spec.name, shares, topology)
    return shares


def _last_first(nodes: Iterable[int], topology: Topology) -> list[int]:
    usable = kernel_nodes(topology)
    return sorted(nodes, key=lambda node: (node in usable, node), reverse=True)


def _users(zones: Iterable[Zone]) -> dict[int, list[str]]:
    """Return node -> the zones that may use it."""
    users: dict[int, list[str]] = {}
    for zone in zones:
        for node in zone.mems:
            users.setdefault(node, []).append(zone.name)
    return users


def _enough(size: int, order: Iterable[int], limits: Mapping[int, int]) -> frozenset[int]:
    nodes: list[int] = []
    for node in order:
        if sum(limits[each] for each in nodes) >= size:
            break
        nodes.append(node)
    return frozenset(nodes)


def _refuse_shared(name: str, nodes: frozenset[int], users: Mapping[int, list[str]]) -> None:
    shared = sorted(nodes & users.keys())
    if shared:
        listed = "; ".join(f"node {node}: {', '.join(users[node])}" for node in shared)
        raise NodeTaken(
            f"zone {name} is to have its nodes for itself, but other zones are there ({listed})",
            hint="zonectl move them, or name other nodes",
        )


def _refuse_all(name: str, nodes: frozenset[int], topology: Topology) -> None:
    if not kernel_nodes(topology) - nodes:
        raise NodeTaken(
            f"zone {name} cannot have node {format_ids(nodes)} for itself: everybody else would"
            " be left without memory that the kernel can use",
            hint="leave at least one node to the rest of the machine",
        )
