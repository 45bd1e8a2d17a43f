# SPDX-License-Identifier: Apache-2.0
"""Which node a CPU or a device is near.

Sources: Documentation/ABI/testing/sysfs-bus-pci (`numa_node`, `local_cpulist`),
Documentation/ABI/testing/sysfs-class-net, Documentation/ABI/stable/sysfs-block.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.errors import BadInput, UnknownNode, Unsupported
from zoned.kernel.memory_block import numbered
from zoned.kernel.root import read_ids, read_int

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.model.topology import Topology

_KINDS = "cpu:3, node:1, pci:0000:3b:00.0, netdev:eth0 or block:nvme0n1"
_PCI = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NODE = re.compile(r"node(\d+)")
_PATHS = re.compile(r"nvme\d+")
_LOWER = re.compile(r"lower_.+")
_ANY = re.compile(r".+")
# A VLAN on a bond on two cards is three levels; sysfs cannot hold a loop of these.
_DEEPEST = 8


def near_node(root: Root, topology: Topology, what: str) -> int:
    """Return the number of the node that `what` is near, by what the kernel says.

    `what` is ``cpu:N``, ``node:N``, ``pci:ADDRESS``, ``netdev:NAME`` or ``block:NAME``. For a
    device it is `numa_node`; where that is -1, the one node that has all its `local_cpulist`.
    What lies on other devices (a VLAN, a bond, LVM, NVMe multipath) is near their node. Whether
    the node has memory is not looked at.

    Raises BadInput if there is no such thing, UnknownNode for a node that the machine does not
    have, Unsupported where the machine does not say.
    """
    kind, _, name = what.partition(":")
    if kind in {"cpu", "node"} and name.isascii() and name.isdigit() and len(name) < 8:
        return (_near_cpu if kind == "cpu" else _known)(root, topology, int(name))
    path = _device(root, kind, name)
    if path is None:
        raise BadInput(f"nothing can be near {what!r}", hint=f"write it like {_KINDS}")
    if not path.exists():
        raise BadInput(f"this machine has no {what}", hint=f"looked for {path}")
    nodes = _nodes_of(path, topology, _DEEPEST)
    if len(nodes) != 1:
        raise Unsupported(
            f"the machine does not say which node {what} is near", hint="name the node: node:N"
        )
    return nodes.pop()


def _device(root: Root, kind: str, name: str) -> Path | None:
    if kind == "pci" and _PCI.fullmatch(name.lower()):
        address = name.lower() if name.count(":") == 2 else f"0000:{name.lower()}"
        return root.sys / "bus/pci/devices" / address
    if not name or "/" in name or name in {".", ".."} or "\0" in name:
        return None
    if kind == "netdev":
        return root.sys / "class/net" / name
    if kind == "block":
        return root.sys / "class/block" / name
    return None


def _known(_root: Root, topology: Topology, number: int) -> int:
    if topology.node(number) is None:
        raise UnknownNode(f"this machine has no node {number}", hint="see: zonectl topology")
    return number


def _near_cpu(root: Root, topology: Topology, number: int) -> int:
    nodes = [node.id for node in topology.nodes if number in (node.cpus or ())]
    # A CPU that is offline is on no node's list, and may still be linked to its node.
    nodes += sorted(numbered(root.sys / f"devices/system/cpu/cpu{number}", _NODE))
    if not nodes:
        raise BadInput(f"no node has CPU {number}", hint="see: zonectl topology")
    return nodes[0]


def _nodes_of(path: Path, topology: Topology, depth: int) -> set[int]:
    """Return the nodes that a device of sysfs is near: its own word first, else what it lies on."""
    found = _by_parents(path, topology)
    if found is not None or depth == 0:
        return set() if found is None else {found}
    return {node for lower in _lower(path) for node in _nodes_of(lower, topology, depth - 1)}


def _by_parents(path: Path, topology: Topology) -> int | None:
    """Climb from the device to the first that has a word on its node (a disk has none, its
    controller has).
    """
    place = path.resolve()
    while place.name not in {"", "devices", "sys"}:
        node = read_int(place / "numa_node")
        if node is not None and topology.node(node):
            return node
        if node is not None:
            return _by_cpus(place, topology)
        place = place.parent
    return None


def _by_cpus(place: Path, topology: Topology) -> int | None:
    cpus = read_ids(place / "local_cpulist")
    if not cpus:
        return None
    nodes = [node.id for node in topology.nodes if node.cpus and cpus & node.cpus]
    return nodes[0] if len(nodes) == 1 else None


def _lower(path: Path) -> Iterator[Path]:
    """Yield the devices that a virtual one lies on."""
    place = path.resolve()
    for folder, pattern in (
        (place, _LOWER),  # network: VLAN, bond, bridge
        (place / "slaves", _ANY),  # block: device mapper, RAID
        (place / "device", _PATHS),  # NVMe with several paths to the same drive
    ):
        try:
            below = sorted(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield from (lower for lower in below if pattern.fullmatch(lower.name))
