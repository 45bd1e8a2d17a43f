# SPDX-License-Identifier: Apache-2.0
"""Moving whole processes by migrate_pages(2), where the kernel shows no page maps.

No progress within a process, and a coarse account: what numa_maps says before and after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import NoSuchProcess
from zoned.kernel.migrate import move_all_pages
from zoned.kernel.process import pages_by_node
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.migration.plan import Move


def move_whole(machine: Machine, control: JobControl, move: Move) -> None:
    """Move each process in one call. Raises Cancelled and Suspended between two of them."""
    control.phase("moving")
    total = 0
    for process in move.scope.processes():
        control.checkpoint()
        before = _misplaced(machine, move, process.pid)
        total += before
        control.expect(total)
        try:
            move_all_pages(machine.root, process.pid, move.route.nodes, move.route.sources)
        except NoSuchProcess:
            control.count(Outcome.GONE, before)
            control.processes(0, 1)
            continue
        left = min(before, _misplaced(machine, move, process.pid))
        control.count(Outcome.MOVED, before - left)
        control.count(Outcome.BUSY, left)
        control.processes(1, 0)


def _misplaced(machine: Machine, move: Move, pid: int) -> int:
    """Return the bytes of anonymous memory on nodes that are to be left."""
    sources = move.route.sources
    return sum(
        size
        for node, size in pages_by_node(machine.root, pid).items()
        if node not in move.route.nodes and (sources is None or node in sources)
    )
