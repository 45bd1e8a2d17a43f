# SPDX-License-Identifier: Apache-2.0
"""The machine's NUMA nodes, as the kernel describes them.

What the kernel says is passed on even where firmware made it say nonsense; what it does not say
is None. Sources: Documentation/ABI/stable/sysfs-devices-node,
Documentation/admin-guide/mm/numaperf.rst, Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers,
proc_meminfo(5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.errors import BadList, MachineError
from zoned.idset import parse_ids
from zoned.kernel.memory_block import block_size, count_blocks, numbered, read_blocks
from zoned.kernel.root import read_int, read_text
from zoned.model.topology import Access, Amount, BlockCount, HugePages, Node, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.model.topology import Block

_NODE = re.compile(r"node(\d+)")
_TIER = re.compile(r"memory_tier(\d+)")
_HUGE = re.compile(r"hugepages-(\d+)kB")
_MEM = re.compile(r"^(?:Node \d+ )?(MemTotal|MemFree): +(\d+) kB$", re.MULTILINE)
_PROCESSOR = re.compile(r"^processor\s*:?\s*(\d+)", re.MULTILINE)


def read_topology(root: Root) -> Topology:
    """Return the nodes and the block size of the machine.

    A machine without nodes in sysfs has one node, number 0, with all CPUs and all memory; what
    only the node files could tell (distances among it) stays unknown there.

    Raises MachineError for a file that cannot be read or holds what it should not.
    """
    folder = root.sys / "devices/system/node"
    numbers = sorted(numbered(folder, _NODE))
    blocks = read_blocks(root)
    counts = _counts(blocks, numbers)
    nodes = _nodes(root, folder, numbers, counts) if numbers else _flat(root, counts)
    return Topology(block_size=block_size(root), nodes=nodes)


def _counts(blocks: tuple[Block, ...], numbers: list[int]) -> Mapping[int, BlockCount]:
    """Count blocks by node: with blocks in the machine, a node without any is known to have 0."""
    counts = count_blocks(blocks)
    have = {block.node for block in blocks}
    if blocks:
        none = BlockCount(total=0, online=0, offline=0)
        counts |= {number: none for number in numbers if number not in have}
    return counts


def _nodes(
    root: Root, folder: Path, numbers: list[int], counts: Mapping[int, BlockCount]
) -> tuple[Node, ...]:
    # An empty list is a kernel that never filled it in: whoever reads it runs on some CPU.
    with_cpu = _ids(folder / "has_cpu") or None
    with_normal = _ids(folder / "has_normal_memory") or None
    tiers = _tiers(root)
    columns = sorted(_ids(folder / "online") or numbers)
    nodes = []
    for number in numbers:
        path = folder / f"node{number}"
        nodes.append(
            Node(
                id=number,
                cpus=_cpus(path),
                distances=_distances(path / "distance", columns),
                memory=_memory(path / "meminfo"),
                has_cpu=None if with_cpu is None else number in with_cpu,
                has_normal_memory=None if with_normal is None else number in with_normal,
                tier=tiers.get(number),
                access=_access(path),
                hugepages=read_hugepages(path / "hugepages"),
                blocks=counts.get(number),
            )
        )
    return tuple(nodes)


def _flat(root: Root, counts: Mapping[int, BlockCount]) -> tuple[Node, ...]:
    """Return the one node of a machine that shows none."""
    node = Node(
        id=0,
        cpus=_all_cpus(root),
        memory=_memory(root.proc / "meminfo"),
        hugepages=read_hugepages(root.sys / "kernel/mm/hugepages"),
        blocks=counts.get(0),
    )
    return (node,)


def _ids(path: Path) -> frozenset[int] | None:
    text = read_text(path)
    if text is None:
        return None
    try:
        # Kernels up to 2.6.3x end the lists of nodes with a NUL.
        return parse_ids(text.strip("\0\n "))
    except BadList as error:
        raise MachineError(f"{path} holds {text!r} where a list was expected") from error


def _all_cpus(root: Root) -> frozenset[int] | None:
    online = _ids(root.sys / "devices/system/cpu/online")
    if online is not None:
        return online
    listed = _PROCESSOR.findall(read_text(root.proc / "cpuinfo") or "")
    return frozenset(int(number) for number in listed) or None


def _cpus(path: Path) -> frozenset[int] | None:
    """Return the node's CPUs; kernels before `cpulist` have only the bit mask."""
    listed = _ids(path / "cpulist")
    if listed is not None:
        return listed
    text = read_text(path / "cpumap")
    if text is None:
        return None
    try:
        mask = int(text.replace(",", ""), 16)
    except ValueError as error:
        raise MachineError(f"{path / 'cpumap'} holds {text!r} where a mask was expected") from error
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def _distances(path: Path, columns: list[int]) -> dict[int, int]:
    """Return node -> distance. The file has one column per online node and does not name them."""
    text = read_text(path) or ""
    try:
        values = [int(word) for word in text.split()]
    except ValueError as error:
        raise MachineError(f"{path} holds {text!r} where distances were expected") from error
    # Other columns than nodes: a node came or went in between, or the listing is not whole.
    return dict(zip(columns, values, strict=True)) if len(values) == len(columns) else {}


def _memory(path: Path) -> Amount:
    found = {key: int(kib) * 1024 for key, kib in _MEM.findall(read_text(path) or "")}
    return Amount(total=found.get("MemTotal"), free=found.get("MemFree"))


def read_hugepages(folder: Path) -> tuple[HugePages, ...]:
    """Return the pools of huge pages below a folder of that name, by size of their pages."""
    return tuple(
        HugePages(
            size=kib * 1024,
            total=read_int(folder / f"hugepages-{kib}kB/nr_hugepages"),
            free=read_int(folder / f"hugepages-{kib}kB/free_hugepages"),
        )
        for kib in sorted(numbered(folder, _HUGE))
    )


def _tiers(root: Root) -> dict[int, int]:
    folder = root.sys / "devices/virtual/memory_tiering"
    return {
        node: tier
        for tier in numbered(folder, _TIER)
        for node in _ids(folder / f"memory_tier{tier}/nodelist") or ()
    }


def _access(path: Path) -> Access | None:
    """Return the node's HMAT attributes as its nearest CPUs see them.

    ``access1`` is about CPUs; ``access0``, the only one of older kernels, is about any initiator.
    The kernel shows 0 for what the firmware left out.
    """
    for name in ("access1", "access0"):
        folder = path / name / "initiators"
        if not folder.is_dir():
            continue
        return Access(
            initiators=frozenset(numbered(folder, _NODE)),
            read_bandwidth=read_int(folder / "read_bandwidth") or None,
            write_bandwidth=read_int(folder / "write_bandwidth") or None,
            read_latency=read_int(folder / "read_latency") or None,
            write_latency=read_int(folder / "write_latency") or None,
        )
    return None
