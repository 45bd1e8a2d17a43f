# SPDX-License-Identifier: Apache-2.0
"""Which nodes have memory that the kernel can use for itself, and what needs some. Pure.

A group confined to movable memory alone cannot even map memory: each mmap(2) ends with ENOMEM,
whatever is free (mm/page_alloc.c, check_insane_mems_config). So every zone has at least one node
with other memory, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.errors import MovableOnly
from zoned.idset import format_ids

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from zoned.model.topology import Topology
    from zoned.model.zone import Zone


def kernel_nodes(topology: Topology) -> frozenset[int]:
    """Return the nodes with memory that the kernel can use for itself, or may have some."""
    return frozenset(
        node.id
        for node in topology.nodes
        if node.has_memory and node.has_normal_memory is not False
    )


def counted_movable(topology: Topology, nodes: Collection[int]) -> Topology:
    """Return the machine as it is once these nodes have movable memory alone."""
    return replace(
        topology,
        nodes=tuple(
            replace(node, has_normal_memory=False) if node.id in nodes else node
            for node in topology.nodes
        ),
    )


def stranded(zones: Iterable[Zone], topology: Topology) -> list[Zone]:
    """Return the zones none of whose nodes has memory that the kernel can use."""
    usable = kernel_nodes(topology)
    return sorted((zone for zone in zones if not zone.nodes & usable), key=lambda zone: zone.name)


def require_normal_memory(name: str, nodes: Iterable[int], topology: Topology) -> None:
    """Raise MovableOnly where no program can run on these nodes alone."""
    chosen = frozenset(nodes)
    if chosen & kernel_nodes(topology):
        return
    together = with_nearest(chosen, topology)
    example = f", e.g. --nodes {format_ids(together)}" if together else ""
    raise MovableOnly(
        f"zone {name}: node {format_ids(chosen)} has only movable memory,"
        " with which no program can run",
        hint=f"take it together with a node that has memory the kernel can use{example}",
    )


def with_nearest(nodes: frozenset[int], topology: Topology) -> frozenset[int]:
    """Return the nodes and the nearest one whose memory the kernel can use; none without any."""
    origins = [node for node in topology.nodes if node.id in nodes]
    usable = kernel_nodes(topology) - nodes
    if not usable:
        return frozenset()
    distances = {
        other: min((origin.distances.get(other, 1 << 16) for origin in origins), default=0)
        for other in usable
    }
    return nodes | {min(usable, key=lambda other: (distances[other], other))}
