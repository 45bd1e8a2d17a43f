# SPDX-License-Identifier: Apache-2.0
"""Destroying a zone, its members moved out or ended first where that was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine import members, units, zones
from zoned.engine.operations.attach import bring
from zoned.engine.operations.blocks import give_back_surplus
from zoned.engine.operations.leave import leave
from zoned.engine.operations.parameters import pace
from zoned.engine.operations.scopes import Listed
from zoned.errors import HasMembers, TryLater, UsageError
from zoned.model.job import JobKind, JobRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.migration.plan import Pace
    from zoned.engine.operations.context import Context

_PASSES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroy:
    """`zonectl destroy`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises NoSuchZone, InPolicy, UsageError, HasMembers, UnitInZone."""
        machine = self.context.machine
        zone = zones.find_zone(machine, parameters["name"])
        zones.refuse_policy_zone(zone, "destroyed")
        drain, kill = parameters.get("drain"), parameters.get("kill")
        pace(parameters)
        if kill and drain is not None:
            raise UsageError("members are either moved or ended", hint="name one of drain and kill")
        if drain is not None:
            _check_drain(self.context, zone.name, drain)
        elif not kill:
            zones.refuse_members(machine, zone.name)
        also = f", its members moved to {drain}" if drain else ", its members ended" if kill else ""
        return JobRequest(
            kind=JobKind.DESTROY,
            what=f"destroy zone {zone.name}{also}",
            zones=(zone.name,) if drain in {None, "root"} else (zone.name, str(drain)),
            parameters=dict(parameters),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        parameters, context = request.parameters, self.context
        name, target = parameters["name"], parameters.get("drain")

        def run(control: JobControl) -> None:
            if name not in context.machine.store.zones:
                return  # an earlier run came as far as that
            if parameters.get("kill"):
                control.change(lambda: members.kill(context.machine, name))
            elif target is not None:
                drain(context, control, name, target, pace(parameters))
            control.phase("destroying the zone")
            control.change(lambda: _forget(context, name))
            give_back_surplus(context, control, name)

        return run


def drain(context: Context, control: JobControl, name: str, target: str, pace: Pace) -> None:
    """Move every member out: to another zone, or to where it came from (`root`).

    Raises TryLater where members are forked without end.
    """
    machine = context.machine
    what = f"drain zone {name} into {target}"
    control.change(lambda: _move_units(context, name, target))

    def inside() -> tuple[int, ...]:
        return machine.members_of(name)

    if target != "root":
        scope = Listed(machine.root, inside)
        bring(context, control, target, inside, scope=scope, what=what, pace=pace)
        return
    released: set[int] = set()
    try:
        for _ in range(_PASSES):
            pids = inside()
            if not pids:
                return
            released.update(pids)
            leave(context, control, name, pids, what=what, pace=pace)
    finally:
        # Not before: what they fork meanwhile belongs to where they came from.
        control.change(lambda: members.forget(machine, name, released))
    raise TryLater(
        f"zone {name} still has {len(inside())} processes after {_PASSES} passes",
        hint="it makes new ones faster than they can be moved; stop or freeze it first",
    )


def _check_drain(context: Context, name: str, target: str) -> None:
    if target != "root":
        zones.find_zone(context.machine, target)
    if target == name:
        raise HasMembers(f"zone {name} cannot be drained into itself", hint="name another zone")
    zones.refuse_units(context.machine, name)


def _move_units(context: Context, name: str, target: str) -> None:
    machine = context.machine
    for unit in zones.find_zone(machine, name).units:
        units.lift_unit(machine, unit)
        if target != "root":
            units.attach(machine, target, unit)


def _forget(context: Context, name: str) -> None:
    machine = context.machine
    zones.forget(machine, context.reconciler, zones.find_zone(machine, name))
