# SPDX-License-Identifier: Apache-2.0
"""Making a zone whose memory others have at the moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from zoned.engine import zones
from zoned.engine.blocks.needs import blocks_of, held_on
from zoned.engine.blocks.size import require_block_size
from zoned.engine.blocks.take import Wish, take
from zoned.engine.operations.blocks import release
from zoned.engine.operations.clear import clear_nodes, tell_of_others
from zoned.engine.operations.parameters import pace
from zoned.engine.store import spec_from_json
from zoned.idset import format_ids
from zoned.kernel.memory_block import read_blocks
from zoned.kernel.node import read_topology
from zoned.model.block import zone_owner
from zoned.model.job import JobKind, JobRequest
from zoned.model.zone import Backing, Origin
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.operations.context import Context
    from zoned.model.zone import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """`zonectl create` for every backing; it is a job where the backing is `blocks` or `node`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. `spec` is a ZoneSpec. Raises NameTaken, Unsupported, what placement
        raises.
        """
        machine, spec = self.context.machine, parameters["spec"]
        pace(parameters)
        zones.check_new(machine, spec)
        zone = zones.admit(machine, spec, Origin.REQUEST)
        size = format_size(zone.spec.size)
        return JobRequest(
            kind=JobKind.CREATE,
            what=f"create zone {spec.name}: {size} of {spec.backing} on node"
            f" {format_ids(zone.nodes)}",
            zones=(spec.name,),
            parameters={
                **parameters,
                "spec": asdict(spec),
                "shares": {str(node): share for node, share in zone.shares.items()},
            },
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        spec = spec_from_json(request.parameters["spec"])
        nodes = sorted(map(int, request.parameters["shares"]))
        context, machine = self.context, self.context.machine

        def run(control: JobControl) -> None:
            if spec.name in machine.store.zones:
                return  # an earlier run came as far as that
            pinned = replace(spec, nodes=format_ids(nodes), near=None)
            zone = control.change(lambda: zones.admit(machine, pinned, Origin.REQUEST))
            _tell_of_rounding(control, spec.size, zone.spec.size)
            with release(context, control, spec.name):
                fill(context, control, zone)
                if spec.backing is Backing.NODE:
                    clear_nodes(context, control, zone, request)
                control.phase("making the zone")
                control.change(
                    lambda: zones.create(machine, context.reconciler, spec, shares=nodes)
                )
            _tell(context, control, spec.name)

        return run


def fill(context: Context, control: JobControl, zone: Zone) -> None:
    """Get a zone the memory blocks that it lacks. Raises what `take` raises."""
    if zone.spec.backing is not Backing.BLOCKS:
        return
    machine = context.machine
    size = require_block_size(machine.root)
    owner = zone_owner(zone.name)
    blocks = {block.id: block for block in read_blocks(machine.root)}
    lacking = {
        node: count - len(held_on(machine.ledger.touched.blocks, owner, blocks, node))
        for node, count in blocks_of(zone, size).items()
    }
    lacking = {node: count for node, count in lacking.items() if count > 0}
    if lacking:
        take(machine, control, Wish(owner=owner, blocks=lacking, online=True))


def _tell_of_rounding(control: JobControl, asked: int, given: int) -> None:
    if asked != given:
        control.note(
            f"{format_size(asked)} is no whole number of memory blocks: {format_size(given)} it is"
        )


def _tell(context: Context, control: JobControl, name: str) -> None:
    machine = context.machine
    zone = machine.store.zones.get(name)
    if zone is None:
        return
    if zone.spec.backing is Backing.NODE:
        tell_of_others(context, control, zone)
        return
    nodes = {node.id: node.memory.free or 0 for node in read_topology(machine.root).nodes}
    for node, share in zone.shares.items():
        if nodes.get(node, 0) < share:
            control.note(
                f"of the {format_size(share)} on node {node}, {format_size(nodes.get(node, 0))} are"
                " free at the moment: others have begun to use it already"
            )
