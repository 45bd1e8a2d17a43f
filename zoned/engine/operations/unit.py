# SPDX-License-Identifier: Apache-2.0
"""Attaching a unit of the service manager: its pages move, its processes stay where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine import units
from zoned.engine.jobs.control import Suspended
from zoned.engine.operations.parameters import pace
from zoned.engine.operations.scopes import Listed
from zoned.engine.operations.transfer import Transfer, refuse_if_full, transfer
from zoned.engine.zones import find_zone
from zoned.model.migration import Sharing

if TYPE_CHECKING:
    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context
    from zoned.model.job import JobRequest
    from zoned.model.zone import Zone


def check_unit(machine: Machine, unit: str) -> str:
    """Return the unit's own name. Raises Unsupported, NoSuchUnit where it does not run."""
    driver = units.driver(machine)
    name = driver.canonical(unit)
    machine.groups.pids_below(driver.unit_cgroup(name))
    return name


def attach_unit(context: Context, control: JobControl, request: JobRequest) -> None:
    """Confine a running unit to the zone's nodes, and have it start in the zone next time.

    It may use its former nodes until its pages have moved. Ended before that, it is as it was.
    """
    machine, unit = context.machine, request.parameters["unit"]
    zone = control.change(lambda: find_zone(machine, request.parameters["name"]))
    wanted = unit_transfer(machine, zone, request)
    refuse_if_full(machine, wanted)
    done = False
    try:
        control.change(lambda: units.widen_unit(machine, zone, unit))
        transfer(machine, control, wanted)
        control.phase("confining the unit")
        control.change(lambda: units.attach(machine, zone.name, unit))
        done = True
    except Suspended:
        done = True
        raise
    finally:
        if not done:
            control.change(lambda: units.unwiden_unit(machine, unit))
    control.note(
        f"{unit} is charged to its own cgroup until it is restarted; then it starts in the zone"
    )


def unit_transfer(machine: Machine, zone: Zone, request: JobRequest) -> Transfer:
    """Return the move of a unit's pages to a zone's nodes."""
    group = units.driver(machine).unit_cgroup(request.parameters["unit"])
    return Transfer(
        what=request.what,
        scope=Listed(machine.root, lambda: machine.groups.pids_below(group)),
        targets=zone.shares,
        sharing=Sharing.ALL,
        pace=pace(request.parameters),
        own=(zone.name,),
    )
