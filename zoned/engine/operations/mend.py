# SPDX-License-Identifier: Apache-2.0
"""What the daemon itself asks for: blocks that a zone lacks, and blocks that belong back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine import zones
from zoned.engine.blocks.observe import needs_of
from zoned.engine.operations.blocks import give_back_all
from zoned.engine.operations.create import fill
from zoned.errors import Partial
from zoned.model.job import JobKind, JobRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.operations.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Get a zone the memory blocks that it lacks, e.g. after a reboot."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises NoSuchZone."""
        zone = zones.find_zone(self.context.machine, parameters["name"])
        return JobRequest(
            kind=JobKind.FILL,
            what=f"get zone {zone.name} the memory blocks that it lacks",
            zones=(zone.name,),
            parameters={"name": zone.name},
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        name, machine = request.parameters["name"], self.context.machine

        def run(control: JobControl) -> None:
            zone = control.change(lambda: zones.find_zone(machine, name))
            fill(self.context, control, zone)

        return run


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """Bring blocks that nobody wants any more back to how they were found."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation."""
        return JobRequest(
            kind=JobKind.GIVE_BACK,
            what="give back memory blocks that nobody wants any more",
            parameters=dict(parameters),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""

        def run(control: JobControl) -> None:
            machine = self.context.machine
            failed = give_back_all(machine, control, lambda: needs_of(machine).back)
            if failed:
                listed = ", ".join(str(each.number) for each in failed)
                raise Partial(
                    f"blocks {listed} are not as they were found", hint="it is tried again"
                )

        return run
