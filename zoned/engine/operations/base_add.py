# SPDX-License-Identifier: Apache-2.0
"""A base zone comes: the blocks of a node, or a device-dax region that becomes memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine.base.bind import become_memory, changing
from zoned.engine.base.movable import claim, find_claim
from zoned.engine.base.online import bring_online
from zoned.engine.base.target import Target, find_target
from zoned.engine.blocks.size import require_block_size
from zoned.errors import BadSize, RegionReserved
from zoned.idset import parse_ids
from zoned.model.base import DaxMode
from zoned.model.job import JobKind, JobRequest
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context
    from zoned.kernel.root import Root


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseAdd:
    """`zonectl base add`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Of a node with `blocks`, a list, no others are brought online; with
        `movable_only` it gets no memory for the kernel.

        Raises UsageError, UnknownNode, NoSuchDax, BadSize, RegionReserved, MovableOnly,
        Unsupported.
        """
        machine, asked = self.context.machine, bool(parameters.get("movable_only"))
        target = find_target(machine, parameters["base"])
        _refuse_too_small(machine.root, target)
        _refuse_reserved(machine, target)
        find_claim(machine, target, _listed(parameters), asked=asked)
        return JobRequest(
            kind=JobKind.BASE_ADD,
            what=f"add base zone {target.name}" + " of movable memory alone" * asked,
            zones=(target.key,),
            parameters=dict(parameters),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        machine, name = self.context.machine, request.parameters["base"]
        asked = bool(request.parameters.get("movable_only"))
        only = _listed(request.parameters)

        def run(control: JobControl) -> None:
            target = find_target(machine, name)
            _refuse_reserved(machine, target)
            control.checkpoint()
            with changing(machine, control, target.dax, DaxMode.SYSTEM_RAM):
                _bind(machine, control, target)
                there = find_target(machine, name)
                found = control.change(lambda: claim(machine, there, only, asked=asked))
                if found.note:
                    control.note(found.note)
                bring_online(machine, control, target.node, only, found.blocks)

        return run


def _bind(machine: Machine, control: JobControl, target: Target) -> None:
    for device in target.dax:
        if device.mode is not DaxMode.SYSTEM_RAM:
            control.phase(f"making {device.name} memory of node {target.node}")
            become_memory(machine, control, device)


def _listed(parameters: Mapping[str, Any]) -> frozenset[int] | None:
    blocks = parameters.get("blocks")
    return parse_ids(blocks) if blocks else None


def _refuse_reserved(machine: Machine, target: Target) -> None:
    regions = {device.name for device in target.dax if device.mode is not DaxMode.SYSTEM_RAM}
    reservations = machine.ledger.touched.reservations
    found = [name for name, each in reservations.items() if each.region in regions]
    if found:
        raise RegionReserved(
            f"memory of {target.name} is reserved for devices: {', '.join(found)}",
            hint="take the reservations out of the policy, or `zonectl dma release` them",
        )


def _refuse_too_small(root: Root, target: Target) -> None:
    size = require_block_size(root)
    for device in target.dax:
        if device.ranges and not device.blocks(size):
            raise BadSize(
                f"{device.name} ({format_size(device.size)}) has no whole memory block of"
                f" {format_size(size)} in it",
                hint="only whole blocks, at multiples of their size, can become memory",
            )
