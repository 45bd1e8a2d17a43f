# SPDX-License-Identifier: Apache-2.0
"""Undoing an attach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine import members, units
from zoned.engine.foreign import foreign_bytes
from zoned.engine.operations.leave import leave
from zoned.engine.operations.parameters import pace, require_one
from zoned.engine.zones import find_zone
from zoned.model.job import JobKind, JobRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Detach:
    """`zonectl detach`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises NoSuchZone, NotAMember, Unsupported."""
        machine = self.context.machine
        what = require_one(parameters, "pid", "unit", "cgroup")
        zone = find_zone(machine, parameters["name"])
        pace(parameters)
        value = parameters[what]
        if what == "unit":
            value = units.check_attached(machine, zone, value)
        else:
            members.check_members(machine, zone.name, _pids(machine, parameters), what, value)
        return JobRequest(
            kind=JobKind.DETACH,
            what=f"detach {what} {value} from zone {zone.name}",
            zones=(zone.name,),
            parameters={**parameters, what: value},
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        parameters, machine = request.parameters, self.context.machine
        name = parameters["name"]

        def run(control: JobControl) -> None:
            unit = parameters.get("unit")
            if unit is not None:
                control.change(lambda: units.lift_unit(machine, unit))
                control.note(f"{unit} is no longer confined to zone {name}")
            else:
                pids = _pids(machine, parameters)
                try:
                    how = pace(parameters)
                    leave(self.context, control, name, pids, what=request.what, pace=how)
                finally:
                    control.change(lambda: members.forget(machine, name, pids))
            control.foreign(foreign_bytes(machine.root, machine.groups.group(name)))

        return run


def _pids(machine: Machine, parameters: Mapping[str, Any]) -> Sequence[int]:
    inside = machine.members_of(parameters["name"])
    pid, cgroup = parameters.get("pid"), parameters.get("cgroup")
    if pid is not None:
        return [pid] if pid in inside else []
    former = members.origins(machine)
    return [each for each in inside if former(each) == cgroup]
