# SPDX-License-Identifier: Apache-2.0
"""A base zone comes: the blocks of a node, or a device-dax region that becomes memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine.base.bind import become_memory
from zoned.engine.base.online import bring_online
from zoned.engine.base.target import Target, find_target
from zoned.engine.blocks.size import require_block_size
from zoned.errors import BadSize
from zoned.idset import parse_ids
from zoned.model.base import DaxMode
from zoned.model.job import JobKind, JobRequest
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.operations.context import Context
    from zoned.kernel.root import Root


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseAdd:
    """`zonectl base add`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Of a node with `blocks`, a list, no others are brought online.

        Raises UsageError, UnknownNode, NoSuchDax, BadSize, Unsupported.
        """
        target = find_target(self.context.machine, parameters["base"])
        _refuse_too_small(self.context.machine.root, target)
        return JobRequest(
            kind=JobKind.BASE_ADD,
            what=f"add base zone {target.name}",
            zones=(target.key,),
            parameters=dict(parameters),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        machine, name = self.context.machine, request.parameters["base"]
        only = request.parameters.get("blocks")

        def run(control: JobControl) -> None:
            target = find_target(machine, name)
            for device in target.dax:
                if device.mode is not DaxMode.SYSTEM_RAM:
                    control.phase(f"making {device.name} memory of node {target.node}")
                    become_memory(machine, control, device)
            bring_online(machine, control, target.node, parse_ids(only) if only else None)

        return run


def _refuse_too_small(root: Root, target: Target) -> None:
    size = require_block_size(root)
    for device in target.dax:
        if device.ranges and not device.blocks(size):
            raise BadSize(
                f"{device.name} ({format_size(device.size)}) has no whole memory block of"
                f" {format_size(size)} in it",
                hint="only whole blocks, at multiples of their size, can become memory",
            )
