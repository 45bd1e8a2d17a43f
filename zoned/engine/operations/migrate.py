# SPDX-License-Identifier: Apache-2.0
"""Moving pages from nodes to nodes, and nothing else: who runs where stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine.operations.parameters import pace, require_one
from zoned.engine.operations.scopes import Family, Listed, named, pinned
from zoned.engine.operations.transfer import Transfer, look, transfer
from zoned.engine.placement import chosen_nodes
from zoned.engine.units import driver
from zoned.engine.zones import find_zone
from zoned.errors import UnknownNode, UsageError
from zoned.idset import format_ids
from zoned.kernel.node import read_topology
from zoned.kernel.own import numa_balancing
from zoned.model.job import JobKind, JobRequest
from zoned.model.migration import Sharing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.migration.plan import Scope
    from zoned.engine.operations.context import Context
    from zoned.model.migration import Survey

_BALANCING = (
    "NUMA balancing is on: the kernel may move pages back to where the program runs"
    " (kernel.numa_balancing; a zone confines pages for good)"
)
_WHO = ("pid", "unit", "cgroup", "zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrate:
    """`zonectl migrate`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises UsageError, UnknownNode, BadList, NoSuchProcess and its like."""
        wanted = _transfer(self.context.machine, parameters)
        zone = parameters.get("zone")
        return JobRequest(
            kind=JobKind.MIGRATE,
            what=wanted.what,
            zones=(zone,) if zone else (),
            parameters=pinned(self.context.machine.root, parameters),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        wanted = _transfer(self.context.machine, request.parameters)

        def run(control: JobControl) -> None:
            transfer(self.context.machine, control, wanted)
            if numa_balancing(self.context.machine.root):
                control.note(_BALANCING)

        return run

    def survey(self, parameters: Mapping[str, Any]) -> tuple[str, Survey]:
        """See Operation."""
        wanted = _transfer(self.context.machine, parameters)
        return wanted.what, look(self.context.machine, wanted)


def _transfer(machine: Machine, parameters: Mapping[str, Any]) -> Transfer:
    who = require_one(parameters, *_WHO)
    targets = memory_nodes(machine, parameters.get("target") or "")
    sources = None
    if parameters.get("source") is not None:
        sources = memory_nodes(machine, parameters["source"])
        if sources <= targets:
            raise UsageError("nothing has to move: every source node is a target as well")
    where = "" if sources is None else f" from node {format_ids(sources)}"
    return Transfer(
        what=f"migrate {who} {parameters[who]}{where} to node {format_ids(targets)}",
        scope=_scope(machine, who, parameters),
        targets=dict.fromkeys(targets, 0),
        sources=sources,
        sharing=Sharing.MEMORY if parameters.get("shared") else Sharing.JOB,
        pace=pace(parameters),
        own=(parameters["zone"],) if who == "zone" else (),
    )


def memory_nodes(machine: Machine, text: str) -> frozenset[int]:
    """Return the nodes that a list names. Raises UnknownNode, BadList."""
    nodes = chosen_nodes(text, read_topology(machine.root))
    if not nodes:
        raise UnknownNode("no node is named")
    return nodes


def _scope(machine: Machine, who: str, parameters: Mapping[str, Any]) -> Scope:
    name = parameters[who]
    if who == "pid":
        return Family(machine.root, named(machine.root, parameters))
    if who == "zone":
        find_zone(machine, name)
        return Listed(machine.root, lambda: machine.members_of(name))
    if who == "unit":
        units = driver(machine)
        name = units.unit_cgroup(units.canonical(name))
    machine.groups.pids_below(name)
    return Listed(machine.root, lambda: machine.groups.pids_below(name))
