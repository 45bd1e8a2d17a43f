# SPDX-License-Identifier: Apache-2.0
"""`zonectl topology`: the machine as it is, without the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoned.cli.output import Column, Format, Table, columns, emit, output_option
from zoned.idset import format_ids
from zoned.kernel.node import read_topology
from zoned.kernel.root import Root, sysroot
from zoned.model.base import granules
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zoned.model.topology import Access, BlockCount, HugePages, Node, Topology


def sysroot_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--sysroot DIR`; it receives a Root as `root`."""
    return click.option(
        "--sysroot",
        "root",
        metavar="DIR",
        callback=_root,
        help="Read a recorded machine: the folder that holds its sys/ and proc/.",
    )(command)


def _root(_context: click.Context, _option: click.Parameter, folder: str | None) -> Root:
    if folder is None:
        return Root()
    if not (Path(folder) / "sys").is_dir():
        raise click.BadParameter(f"{folder} holds no sys/ (a recorded machine has sys/ and proc/)")
    return sysroot(Path(folder))


@click.command
@output_option
@sysroot_option
def topology(output: Format, root: Root) -> None:
    """Show the base zones of this machine: its NUMA nodes.

    Per node: its CPUs, its memory, whether the kernel can use it for itself (KERNEL; memory that
    is only movable it cannot), memory blocks online of all, huge pages free of all, the memory
    tier (lower is faster) and, where the firmware tells, bandwidth and latency from the nearest
    CPUs. Below, the distances between nodes: 10 is local.

    What the machine does not tell is shown as "-" (null in JSON). No daemon and no root needed.
    """
    machine = read_topology(root)
    tables = [_nodes_table(machine.nodes)]
    if len(machine.nodes) > 1 and any(node.distances for node in machine.nodes):
        tables.append(_distances_table(machine.nodes))
    emit(output, topology_data(machine), *tables, notes=_notes(machine))


def _notes(machine: Topology) -> list[str]:
    notes = []
    if machine.block_size is not None:
        notes.append(f"memory blocks of {format_size(machine.block_size)}")
    for parts in sorted({tuple(sorted(nodes)) for nodes in granules(machine.nodes).values()}):
        notes.append(f"nodes {format_ids(parts)} are parts of one physical node (numa=fake)")
    return ["", *notes] if notes else []


def topology_data(machine: Topology) -> dict[str, object]:
    """Return what `zonectl topology -o json` prints. Sizes are bytes; None is "unknown"."""
    return {
        "block_size": machine.block_size,
        "nodes": [_node_data(node) for node in machine.nodes],
    }


def _node_data(node: Node) -> dict[str, object]:
    return {
        "id": node.id,
        "cpus": None if node.cpus is None else format_ids(node.cpus),
        "distances": {str(other): far for other, far in sorted(node.distances.items())},
        "memory": {"total": node.memory.total, "free": node.memory.free},
        "has_cpu": node.has_cpu,
        "has_normal_memory": node.has_normal_memory,
        "tier": node.tier,
        "access": None if node.access is None else _access_data(node.access),
        "hugepages": [
            {"size": pool.size, "total": pool.total, "free": pool.free} for pool in node.hugepages
        ],
        "blocks": None if node.blocks is None else _count_data(node.blocks),
    }


def _access_data(access: Access) -> dict[str, object]:
    return {
        "initiators": sorted(access.initiators),
        "read_bandwidth": access.read_bandwidth,
        "write_bandwidth": access.write_bandwidth,
        "read_latency": access.read_latency,
        "write_latency": access.write_latency,
    }


def _count_data(count: BlockCount) -> dict[str, object]:
    return {"total": count.total, "online": count.online, "offline": count.offline}


def _nodes_table(nodes: Sequence[Node]) -> Table:
    heads = [*columns(">NODE", "CPUS", ">TOTAL", ">FREE", "KERNEL", ">BLOCKS", ">HUGEPAGES")]
    cells: list[list[str | int | None]] = [
        [
            node.id,
            None if node.cpus is None else format_ids(node.cpus) or "none",
            format_size(node.memory.total),
            format_size(node.memory.free),
            {True: "yes", False: "no", None: None}[node.has_normal_memory],
            None if node.blocks is None else f"{node.blocks.online}/{node.blocks.total}",
            _hugepages_cell(node.hugepages),
        ]
        for node in nodes
    ]
    for head, values in _optional_columns(nodes):
        heads.append(Column(title=head, right=True))
        for row, value in zip(cells, values, strict=True):
            row.append(value)
    return Table(columns=heads, rows=cells)


def _optional_columns(nodes: Sequence[Node]) -> Iterator[tuple[str, list[int | None]]]:
    """Yield the columns that only some machines have anything to say in."""
    read = [node.access.read_bandwidth if node.access else None for node in nodes]
    latency = [node.access.read_latency if node.access else None for node in nodes]
    for head, values in (
        ("TIER", [node.tier for node in nodes]),
        ("READ MiB/s", read),
        ("LATENCY ns", latency),
    ):
        if any(value is not None for value in values):
            yield head, values


def _hugepages_cell(pools: Sequence[HugePages]) -> str | None:
    """Return e.g. ``6/8 of 2MiB``; None where nothing is known, "none" where there are none."""
    if not pools:
        return None
    used = [pool for pool in pools if pool.total != 0]
    return (
        ", ".join(
            f"{'-' if pool.free is None else pool.free}/{'-' if pool.total is None else pool.total}"
            f" of {format_size(pool.size)}"
            for pool in used
        )
        or "none"
    )


def _distances_table(nodes: Sequence[Node]) -> Table:
    return Table(
        columns=columns(">NODE", *(f">{node.id}" for node in nodes)),
        rows=[[node.id, *(node.distances.get(other.id) for other in nodes)] for node in nodes],
        title="distances",
    )
