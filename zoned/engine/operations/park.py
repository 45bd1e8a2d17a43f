# SPDX-License-Identifier: Apache-2.0
"""Parking memory blocks: held offline, ready for zones, and out of everybody's reach."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoned.engine import placement, zones
from zoned.engine.blocks.needs import held_on
from zoned.engine.blocks.size import require_block_size
from zoned.engine.blocks.take import Wish, take
from zoned.engine.jobs.control import Cancelled
from zoned.engine.operations.blocks import give_back_all
from zoned.errors import BadSize, NoCapacity, NodeTaken, Partial, UnknownNode
from zoned.kernel.memory_block import read_blocks
from zoned.kernel.node import read_topology
from zoned.model.block import PARKED
from zoned.model.job import JobKind, JobRequest
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context
    from zoned.model.block import HeldBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    """`zonectl blocks park`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises UnknownNode, BadSize, NodeTaken, Unsupported, NoCapacity."""
        machine, node = self.context.machine, int(parameters["node"])
        block = require_block_size(machine.root)
        topology = read_topology(machine.root)
        placement.chosen_nodes(str(node), topology)
        size = _positive(parameters["size"])
        count = -(-size // block)
        refuse_promised(machine, node, count * block)
        return JobRequest(
            kind=JobKind.PARK,
            what=f"park {format_size(count * block)} of node {node}",
            parameters={
                **parameters,
                "size": count * block,
                "asked": size,
                # So that what another job takes at the same time is told apart.
                "token": parameters.get("token") or secrets.token_hex(4),
            },
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        parameters, machine = request.parameters, self.context.machine
        node, size, asked = (int(parameters[key]) for key in ("node", "size", "asked"))
        owner = f"parking:{parameters['token']}"

        def run(control: JobControl) -> None:
            if asked != size:
                control.note(
                    f"{format_size(asked)} is no whole number of memory blocks:"
                    f" {format_size(size)} it is"
                )
            count = size // require_block_size(machine.root) - len(parked_by(machine, owner))
            keep = bool(parameters.get("keep"))
            wish = Wish(owner=owner, blocks={node: count}, online=False, keep=keep)
            take_and_park(machine, control, wish)

        return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpark:
    """`zonectl blocks unpark`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Without a size all of the node's parked blocks. Raises UnknownNode,
        BadSize, Unsupported.
        """
        machine, node = self.context.machine, int(parameters["node"])
        parked = _parked(machine, node)
        block = require_block_size(machine.root)
        size = parameters.get("size")
        size = len(parked) * block if size is None else _positive(size)
        if not parked:
            raise UnknownNode(
                f"node {node} has no parked memory blocks",
                hint="zonectl blocks list shows who owns which",
            )
        count = -(-size // block)
        if count > len(parked):
            raise BadSize(
                f"node {node} has {format_size(len(parked) * block)} parked, fewer than"
                f" {format_size(size)}"
            )
        return JobRequest(
            kind=JobKind.UNPARK,
            what=f"unpark {format_size(count * block)} of node {node}",
            parameters={"node": node, "left": len(parked) - count},
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        node, left = (int(request.parameters[key]) for key in ("node", "left"))
        machine = self.context.machine

        def run(control: JobControl) -> None:
            bring_back(machine, control, lambda: _parked(machine, node)[left:])

        return run


def take_and_park(machine: Machine, control: JobControl, wish: Wish) -> None:
    """Take blocks for an owner that is only there until they are taken, and park them.

    Raises what `take` does; what it has left to the owner is parked.
    """
    try:
        take(machine, control, wish)
    except (Partial, Cancelled):
        control.change(lambda: _settle(machine, wish.owner))
        raise
    control.change(lambda: _settle(machine, wish.owner))


def parked_by(machine: Machine, owner: str) -> frozenset[int]:
    """Return the blocks that a request has parked already, when it is taken up again."""
    held = machine.ledger.touched.blocks.values()
    return frozenset(each.number for each in held if each.parked_by == owner)


def bring_back(
    machine: Machine, control: JobControl, choose: Callable[[], list[HeldBlock]]
) -> None:
    """Bring parked blocks back as they were. Raises Partial where some are not."""
    control.phase("bringing parked blocks online")
    failed = give_back_all(machine, control, choose)
    if failed:
        raise Partial(
            f"{len(failed)} blocks are not as they were",
            hint="the job's notes tell why; it is tried again",
        )


def _parked(machine: Machine, node: int) -> list[HeldBlock]:
    blocks = {block.id: block for block in read_blocks(machine.root)}
    held = held_on(machine.ledger.touched.blocks, PARKED, blocks, node)
    return sorted(held, key=lambda each: each.number)


def _settle(machine: Machine, owner: str) -> None:
    mine = [each for each in machine.ledger.touched.blocks.values() if each.owner == owner]
    machine.ledger.blocks_taken([replace(each, owner=PARKED, parked_by=owner) for each in mine])


def _positive(size: int) -> int:
    if size <= 0:
        raise BadSize(f"a size of {size} bytes makes no sense", hint="e.g. 512MiB")
    return size


def refuse_promised(machine: Machine, node: int, size: int) -> None:
    """Raise NodeTaken or NoCapacity where zones were promised what is to be parked."""
    capacity = zones.capacity_of(machine)[node]
    if capacity.master is not None:
        raise NodeTaken(
            f"node {node} belongs to zone {capacity.master} alone", hint="name another node"
        )
    if size > capacity.available:
        raise NoCapacity(
            f"node {node} can do without {format_size(max(0, capacity.available))}, but"
            f" {format_size(size)} are to be parked ({format_size(capacity.total)} total -"
            f" {format_size(capacity.system)} system reserve - {format_size(capacity.reserved)}"
            " reserved)",
            hint="take less, or another node",
        )
