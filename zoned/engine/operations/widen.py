# SPDX-License-Identifier: Apache-2.0
"""Letting a zone's members use other nodes for a while.

The kernel moves pages only to nodes that the process's cpuset allows, and a process that enters a
cpuset without the nodes its pages are on has all of them moved at once, up to Linux 6.12 while
all of the machine's cgroups are locked. In a zone that has both, it enters without a page moving,
and its pages move in small steps.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.jobs.control import Suspended
from zoned.engine.zones import find_zone
from zoned.kernel.node import read_topology

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.engine.jobs.control import JobControl
    from zoned.engine.operations.context import Context


@contextlib.contextmanager
def widened(
    context: Context, control: JobControl, name: str, nodes: frozenset[int]
) -> Iterator[None]:
    """Let the zone's members use these nodes too, until the block ends.

    Where the daemon stops within the block they stay, for the job that is taken up again. What an
    earlier run of the job left is taken back as well.
    """
    wider = control.change(lambda: _widen(context, name, nodes))
    try:
        yield
    except Suspended:
        wider = False
        raise
    finally:
        if wider:
            control.change(lambda: narrow(context, name))


def narrow(context: Context, name: str) -> None:
    """Take nodes back that nothing is accounted on."""
    zone = context.machine.store.zones.get(name)
    if zone is not None and zone.leaving:
        left = {node: size for node, size in zone.leaving.items() if size}
        context.machine.store.put(replace(zone, leaving=left))
        context.reconciler.converge(name)


def _widen(context: Context, name: str, nodes: frozenset[int]) -> bool:
    zone = find_zone(context.machine, name)
    more = (nodes & read_topology(context.machine.root).memory_nodes) - zone.mems
    if more:
        leaving = {**zone.leaving, **dict.fromkeys(more, 0)}
        context.machine.store.put(replace(zone, leaving=leaving))
        context.reconciler.converge(name)
    return bool(more or zone.leaving)
