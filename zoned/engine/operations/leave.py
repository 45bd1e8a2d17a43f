# SPDX-License-Identifier: Apache-2.0
"""Putting members back to where they came from.

Their pages stay where they are if they may: a process that may use all nodes loses nothing by
being on one. Where its former cgroup does not allow the zone's nodes, its pages move first.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from zoned.engine import members
from zoned.engine.operations.scopes import Listed
from zoned.engine.operations.transfer import Transfer, transfer
from zoned.engine.operations.widen import widened
from zoned.engine.zones import find_zone
from zoned.kernel.node import read_topology
from zoned.model.migration import Sharing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.engine.jobs.control import JobControl
    from zoned.engine.migration.plan import Pace
    from zoned.engine.operations.context import Context


def leave(
    context: Context,
    control: JobControl,
    name: str,
    pids: Sequence[int],
    *,
    what: str,
    pace: Pace,
) -> None:
    """Put members of a zone back. What was cancelled before its turn stays a member.

    The ledger knows of them until `members.forget`.
    """
    machine = context.machine
    zone = control.change(lambda: find_zone(machine, name))
    former = members.former_nodes(machine)
    every = read_topology(machine.root).memory_nodes
    groups: dict[frozenset[int], list[int]] = {}
    for pid in pids:
        nodes = former(pid)
        home = every if nodes is None else nodes & every
        groups.setdefault(every if zone.nodes <= home or not home else home, []).append(pid)
    for nodes, some in groups.items():
        control.checkpoint()
        if nodes == every:
            control.change(partial(members.put_back, machine, some))
            control.processes(len(some), 0)
            continue
        with widened(context, control, name, nodes):
            wanted = Transfer(
                what=what,
                scope=Listed(machine.root, tuple(some).__iter__),
                targets=dict.fromkeys(nodes, 0),
                sharing=Sharing.ALL,
                pace=pace,
            )
            transfer(machine, control, wanted)
            control.change(partial(members.put_back, machine, some))
