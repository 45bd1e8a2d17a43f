# SPDX-License-Identifier: Apache-2.0
"""Changing the size of a zone whose memory comes from others or goes back to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine import zones
from zoned.engine.operations.blocks import give_back_surplus, release
from zoned.engine.operations.create import fill
from zoned.model.job import JobKind, JobRequest
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.operations.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """`zonectl resize` for every backing; it is a job where the backing is `blocks` or `node`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises NoSuchZone, InPolicy, NoCapacity, BadSize."""
        machine = self.context.machine
        old = zones.find_zone(machine, parameters["name"])
        after = zones.resized(machine, old, parameters["size"])
        return JobRequest(
            kind=JobKind.RESIZE,
            what=f"resize zone {old.name} from {format_size(old.spec.size)} to"
            f" {format_size(after.spec.size)}",
            zones=(old.name,),
            parameters=dict(parameters),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        name, size = request.parameters["name"], request.parameters["size"]
        context, machine = self.context, self.context.machine

        def run(control: JobControl) -> None:
            old = control.change(lambda: zones.find_zone(machine, name))
            after = control.change(lambda: zones.resized(machine, old, size))
            # What it gets comes before its limits rise, what it loses goes after they fell.
            with release(context, control, name):
                fill(context, control, after)
                control.phase("setting the zone's limits")
                control.change(lambda: zones.resize(machine, context.reconciler, name, size))
            give_back_surplus(context, control, name)

        return run
