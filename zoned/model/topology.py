# SPDX-License-Identifier: Apache-2.0
"""Base zones: what the machine's nodes and memory blocks are. None always means "unknown"."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Memory of a node, in bytes."""

    total: int | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the firmware's HMAT says of the path from the nearest CPUs to a node's memory."""

    initiators: frozenset[int] = frozenset()
    read_bandwidth: int | None = None
    """MiB/s"""
    write_bandwidth: int | None = None
    read_latency: int | None = None
    """nanoseconds"""
    write_latency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """The persistent huge pages of one size on one node."""

    size: int
    """bytes"""
    total: int | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCount:
    """How many memory blocks a node has."""

    total: int
    online: int
    offline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One NUMA node: a base zone where it has memory or can get some."""

    id: int
    cpus: frozenset[int] | None = None
    distances: Mapping[int, int] = field(default_factory=dict)
    memory: Amount = Amount()
    has_cpu: bool | None = None
    has_normal_memory: bool | None = None
    tier: int | None = None
    access: Access | None = None
    hugepages: tuple[HugePages, ...] = ()
    blocks: BlockCount | None = None

    @property
    def has_memory(self) -> bool:
        """Whether any memory is known to be on the node now."""
        return bool(self.memory.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All nodes of a machine, in ascending order."""

    block_size: int | None = None
    nodes: tuple[Node, ...] = ()

    def node(self, number: int) -> Node | None:
        """Return the node of that number."""
        return next((node for node in self.nodes if node.id == number), None)

    @property
    def memory_nodes(self) -> frozenset[int]:
        """Return the nodes that have memory."""
        return frozenset(node.id for node in self.nodes if node.has_memory)


class BlockState(StrEnum):
    """The state of a memory block, in the kernel's words (memory-hotplug.rst)."""

    ONLINE = "online"
    OFFLINE = "offline"
    GOING_OFFLINE = "going-offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One memory block of the kernel's hotplug interface."""

    id: int
    start: int
    """physical address, bytes"""
    size: int | None
    state: BlockState | None
    zones: tuple[str, ...] = ()
    """`valid_zones`: online, the zone it is in; offline, the zones it can come back to."""
    node: int | None = None
    owner: str | None = None
