# SPDX-License-Identifier: Apache-2.0
"""Making running programs members of a zone, their pages first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from zoned.engine import members
from zoned.engine.foreign import foreign_bytes
from zoned.engine.operations.parameters import pace, require_one
from zoned.engine.operations.scopes import Listed, Only, named, pinned
from zoned.engine.operations.transfer import Transfer, look, refuse_if_full, transfer
from zoned.engine.operations.unit import attach_unit, check_unit, unit_transfer
from zoned.engine.operations.widen import widened
from zoned.engine.zones import find_zone
from zoned.errors import TryLater, Unsupported
from zoned.kernel.process import alive, allowed_nodes, find
from zoned.model.job import JobKind, JobRequest
from zoned.model.migration import Sharing
from zoned.model.zone import Backing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.migration.plan import Pace, Scope
    from zoned.engine.operations.context import Context
    from zoned.model.migration import Survey
    from zoned.model.zone import Zone

_PASSES = 50
"""How often newly forked processes are fetched: one that forks faster than that is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """`zonectl attach`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises NoSuchZone, NoSuchProcess, KernelThread, NotConfinable, NoSuchUnit,
        NoSuchCgroup, Unsupported.
        """
        machine = self.context.machine
        what = require_one(parameters, "pid", "unit", "cgroup")
        zone = find_zone(machine, parameters["name"])
        pace(parameters)
        value = parameters[what]
        if what == "pid":
            members.refuse_vital(value)
            find(machine.root, value)
        elif what == "unit":
            _refuse_fenced(zone, value)
            value = check_unit(machine, value)
        else:
            members.check_cgroup(machine, zone, value)
        return JobRequest(
            kind=JobKind.ATTACH,
            what=f"attach {what} {value} to zone {zone.name}",
            zones=(zone.name,),
            parameters=pinned(machine.root, {**parameters, what: value}),
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        parameters, machine = request.parameters, self.context.machine

        def run(control: JobControl) -> None:
            name = parameters["name"]
            if parameters.get("unit") is not None:
                attach_unit(self.context, control, request)
            else:
                bring(
                    self.context,
                    control,
                    name,
                    _strangers(machine, parameters),
                    scope=_scope(machine, parameters),
                    what=request.what,
                    pace=pace(parameters),
                )
            control.foreign(foreign_bytes(machine.root, machine.groups.group(name)))

        return run

    def survey(self, parameters: Mapping[str, Any]) -> tuple[str, Survey]:
        """See Operation."""
        machine = self.context.machine
        request = self.prepare(parameters)
        zone = find_zone(machine, parameters["name"])
        if parameters.get("unit") is not None:
            return request.what, look(machine, unit_transfer(machine, zone, request))
        scope = _scope(machine, request.parameters)
        wanted = _transfer(zone, scope, what=request.what, pace=pace(parameters))
        return request.what, look(machine, wanted)


def _refuse_fenced(zone: Zone, unit: str) -> None:
    if zone.spec.backing is Backing.NODE:
        raise Unsupported(
            f"{unit} runs in a slice that is kept off the nodes of zone {zone.name}, so it cannot"
            " use them where it is",
            hint="attach its processes by --pid, or start it again with"
            " Slice= and the zone's slice (zonectl show tells it)",
        )


def bring(
    context: Context,
    control: JobControl,
    name: str,
    pids: Callable[[], Sequence[int]],
    *,
    scope: Scope,
    what: str,
    pace: Pace,
) -> None:
    """Make the processes that `pids` lists members of a zone, and move their pages there.

    A process that may use the zone's nodes already gets its pages moved before it enters. One
    that may not enters the zone first, which has the process's nodes as well until its pages have
    moved. Cancelled in between, a process that had not entered stays where it was.

    Raises NoRoom and ReservationInUse before anything is changed, TryLater where new processes come
    without end.
    """
    machine = context.machine
    zone = control.change(lambda: find_zone(machine, name))
    wanted = _transfer(zone, scope, what=what, pace=pace)
    confined, nodes = _confined(machine, zone, pids())
    # Those that enter first are no longer where `pids` looks, but stay in the scope's sight.
    scope.processes()
    if confined:
        refuse_if_full(machine, wanted)
    with widened(context, control, name, nodes):
        control.change(lambda: members.admit(machine, zone, confined))
        transfer(machine, control, wanted)
        control.phase("entering the zone")
        _enter(context, control, zone, pids)


def _enter(
    context: Context, control: JobControl, zone: Zone, pids: Callable[[], Sequence[int]]
) -> None:
    machine = context.machine
    ended: set[int] = set()
    for _ in range(_PASSES):
        left = [pid for pid in pids() if pid not in ended]
        if not left:
            return
        control.checkpoint()
        ended.update(control.change(partial(members.admit, machine, zone, left)))
    raise TryLater(
        f"{len(pids())} processes are not in zone {zone.name} after {_PASSES} passes",
        hint="new ones are made faster than they can be moved; stop or freeze the program first",
    )


def _strangers(machine: Machine, parameters: Mapping[str, Any]) -> Callable[[], Sequence[int]]:
    """Return what lists the processes that are to be members and are none yet."""
    name, pid, cgroup = parameters["name"], parameters.get("pid"), str(parameters.get("cgroup"))
    if pid is None:
        return lambda: machine.groups.pids_below(cgroup)
    process = named(machine.root, parameters)

    def stranger() -> Sequence[int]:
        here = alive(machine.root, process)
        return [pid] if here and pid not in machine.members_of(name) else []

    return stranger


def _scope(machine: Machine, parameters: Mapping[str, Any]) -> Scope:
    if parameters.get("pid") is not None:
        return Only(machine.root, named(machine.root, parameters))
    return Listed(machine.root, lambda: machine.groups.pids_below(parameters["cgroup"]))


def _confined(
    machine: Machine, zone: Zone, pids: Sequence[int]
) -> tuple[list[int], frozenset[int]]:
    """Return those that may not use the zone's nodes, and the nodes that these may use."""
    confined, nodes = [], frozenset[int]()
    for pid in pids:
        allowed = allowed_nodes(machine.root, pid)
        if allowed is not None and not zone.nodes <= allowed:
            confined.append(pid)
            nodes |= allowed
    return confined, nodes - zone.nodes


def _transfer(zone: Zone, scope: Scope, *, what: str, pace: Pace) -> Transfer:
    return Transfer(
        what=what,
        scope=scope,
        targets=zone.shares,
        # On entering the kernel itself moves all that a process maps, shared or not.
        sharing=Sharing.ALL,
        pace=pace,
        own=(zone.name,),
    )
