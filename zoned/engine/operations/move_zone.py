# SPDX-License-Identifier: Apache-2.0
"""Moving a zone to other nodes: widen, move its pages, narrow.

From the first step on its size is accounted on the new nodes as well as on the old ones, and its
limits never change; so there is no moment without protection. What ends half-way stays half-way,
on both, until somebody says which way to go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoned.engine.foreign import foreign_bytes
from zoned.engine.operations.blocks import give_back_surplus, release
from zoned.engine.operations.clear import clear_nodes
from zoned.engine.operations.create import fill
from zoned.engine.operations.migrate import memory_nodes
from zoned.engine.operations.parameters import pace
from zoned.engine.operations.scopes import Listed
from zoned.engine.operations.transfer import Transfer, look, refuse_if_full, transfer
from zoned.engine.placement import place_cpus
from zoned.engine.units import confine_attached, pids_of_attached
from zoned.engine.zones import admit, find_zone, refuse_policy_zone
from zoned.errors import UsageError, ZonedError
from zoned.idset import format_ids
from zoned.kernel.node import read_topology
from zoned.model.job import JobKind, JobRequest
from zoned.model.migration import Sharing
from zoned.model.zone import Backing
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context
    from zoned.model.migration import Survey
    from zoned.model.zone import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveZone:
    """`zonectl move`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises NoSuchZone, InPolicy, UnknownNode, BadList, NoCapacity."""
        zone = find_zone(self.context.machine, parameters["name"])
        refuse_policy_zone(zone, "moved")
        after = _target(self.context.machine, zone, parameters)
        if after.nodes == zone.nodes and not zone.leaving:
            raise UsageError(f"zone {zone.name} is on node {format_ids(zone.nodes)} already")
        pace(parameters)
        return JobRequest(
            kind=JobKind.MOVE,
            what=f"move zone {zone.name} to node {format_ids(after.nodes)}",
            zones=(zone.name,),
            parameters=dict(parameters),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        name, machine = request.parameters["name"], self.context.machine

        def run(control: JobControl) -> None:
            zone = control.change(lambda: find_zone(machine, name))
            if not zone.leaving:
                # Before anything changes; a move that was begun before goes on as it can.
                wanted = _target(machine, zone, request.parameters)
                refuse_if_full(machine, _transfer(machine, request, wanted))
            with release(self.context, control, name):
                self._prepare_nodes(control, request, zone)
                after = control.change(lambda: self._begin(request.parameters))
            transfer(self.context.machine, control, _transfer(self.context.machine, request, after))
            control.phase("narrowing the zone to its new nodes")
            control.change(lambda: self._end(name))
            give_back_surplus(self.context, control, name)
            _tell(machine, control, name)

        return run

    def survey(self, parameters: Mapping[str, Any]) -> tuple[str, Survey]:
        """See Operation."""
        machine = self.context.machine
        request = self.prepare(parameters)
        after = _target(machine, find_zone(machine, parameters["name"]), parameters)
        return request.what, look(machine, _transfer(machine, request, after))

    def _prepare_nodes(self, control: JobControl, request: JobRequest, zone: Zone) -> None:
        """Get the new nodes' memory ready, where the zone is to have blocks or nodes of its own."""
        wanted = _target(self.context.machine, zone, request.parameters)
        fill(self.context, control, wanted)
        if zone.spec.backing is Backing.NODE:
            clear_nodes(self.context, control, wanted, request)

    def _begin(self, parameters: Mapping[str, Any]) -> Zone:
        """Account the zone on the new nodes too, and let it use them. After an error it is as it
        was.
        """
        machine = self.context.machine
        zone = find_zone(machine, parameters["name"])
        after = _target(machine, zone, parameters)
        old = {**zone.leaving, **zone.shares}
        leaving = {node: size for node, size in old.items() if node not in after.shares}
        cpus = None
        if zone.cpus is not None and after.cpus is not None:
            cpus = zone.cpus | after.cpus
        machine.store.put(replace(after, leaving=leaving, cpus=cpus))
        try:
            self.context.reconciler.converge(zone.name)
        except ZonedError:
            machine.store.put(zone)
            self.context.reconciler.run()
            raise
        confine_attached(machine, find_zone(machine, zone.name))
        return after

    def _end(self, name: str) -> None:
        """Take the old nodes away. The kernel moves what of its pages is still there."""
        machine = self.context.machine
        zone = find_zone(machine, name)
        cpus = place_cpus(zone.spec, zone.shares, read_topology(machine.root))
        after = replace(zone, leaving={}, cpus=cpus)
        machine.store.put(after)
        self.context.reconciler.converge(name)
        confine_attached(machine, after)


def _target(machine: Machine, zone: Zone, parameters: Mapping[str, Any]) -> Zone:
    """Return the zone as it should be."""
    nodes = memory_nodes(machine, parameters.get("nodes") or "")
    spec = replace(zone.spec, nodes=format_ids(nodes), near=None)
    return replace(admit(machine, spec, zone.origin), leaving={})


def _transfer(machine: Machine, request: JobRequest, after: Zone) -> Transfer:
    def pids() -> tuple[int, ...]:
        return (*machine.members_of(after.name), *pids_of_attached(machine, after))

    return Transfer(
        what=request.what,
        scope=Listed(machine.root, pids),
        targets=after.shares,
        # When the zone is narrowed the kernel moves all that its members map.
        sharing=Sharing.ALL,
        pace=pace(request.parameters),
        own=(after.name,),
    )


def _tell(machine: Machine, control: JobControl, name: str) -> None:
    group = machine.groups.group(name)
    zone = machine.store.zones.get(name)
    control.foreign(foreign_bytes(machine.root, group))
    if group is None or zone is None:
        return
    elsewhere = {node: size for node, size in group.by_node.items() if node not in zone.nodes}
    if sum(elsewhere.values()) > 1 << 20:
        listed = ", ".join(
            f"{format_size(size)} on node {node}" for node, size in elsewhere.items() if size
        )
        control.note(
            f"charged to the zone and still elsewhere: {listed}; file cache that no process maps,"
            " and kernel memory, stay where they are until they are freed"
        )
