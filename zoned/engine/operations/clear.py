# SPDX-License-Identifier: Apache-2.0
"""Clearing nodes that a zone is to have for itself of everybody else's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.fence.keep import fenced_nodes
from zoned.engine.operations.parameters import pace
from zoned.engine.operations.scopes import Listed
from zoned.engine.operations.transfer import Transfer, transfer
from zoned.idset import format_ids
from zoned.kernel.node import read_topology
from zoned.kernel.process import all_pids, allowed_nodes
from zoned.model.migration import Sharing
from zoned.units import format_size

if TYPE_CHECKING:
    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context
    from zoned.model.job import JobRequest
    from zoned.model.zone import Zone


def clear_nodes(context: Context, control: JobControl, zone: Zone, request: JobRequest) -> None:
    """Move the pages that programs have on the zone's nodes elsewhere, while they run on.

    Where the fence goes up the kernel moves what is left, all at once. Raises NoRoom before a page
    moves, Cancelled and Suspended in between.
    """
    machine = context.machine
    # Nobody may use what other zones have for themselves, or this one had until now.
    rest = read_topology(machine.root).memory_nodes - zone.nodes - fenced_nodes(machine)

    # Those that there are now: what comes later is kept off by the fence. A process that may not
    # use all of the rest has its pages moved by the kernel, when the fence goes up.
    others = [
        pid
        for pid in {*all_pids(machine.root)} - {*machine.members_of(zone.name)}
        if rest <= (allowed_nodes(machine.root, pid) or rest)
    ]
    transfer(
        machine,
        control,
        Transfer(
            what=f"clear node {format_ids(zone.nodes)} for zone {zone.name}",
            scope=Listed(machine.root, others.copy),
            targets=dict.fromkeys(rest, 0),
            sources=zone.nodes,
            sharing=Sharing.ALL,
            pace=pace(request.parameters),
        ),
    )


def tell_of_others(context: Context, control: JobControl, zone: Zone) -> None:
    """Tell what still lies on the zone's nodes that is not the zone's."""
    machine = context.machine
    group = machine.groups.group(zone.name)
    for node in read_topology(machine.root).nodes:
        if node.id not in zone.nodes or node.memory.total is None or node.memory.free is None:
            continue
        own = group.by_node.get(node.id, 0) if group else 0
        others = max(0, node.memory.total - node.memory.free - own)
        control.note(
            f"{format_size(others)} of node {node.id} are in use by others: the kernel itself, and"
            " file cache that no process maps, which goes when the zone needs the memory"
        )
    _tell_of_loose(machine, control, zone)


def _tell_of_loose(machine: Machine, control: JobControl, zone: Zone) -> None:
    """Tell how many the fence does not keep off. What the kernel runs is no reason for an alert."""
    loose = machine.fence.loose() if machine.fence else None
    if loose is None or not (loose.processes or loose.kernel_threads):
        return
    control.note(
        f"nobody can keep {loose.kernel_threads} threads of the kernel and"
        f" {len(loose.processes)} processes, all in the root group, off node"
        f" {format_ids(zone.nodes)}"
    )
