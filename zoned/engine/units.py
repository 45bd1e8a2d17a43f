# SPDX-License-Identifier: Apache-2.0
"""Units of the service manager in zones: confined where they run, started in the zone next time.

The pages of a running service stay charged to its own cgroup when its processes move, so they do
not move: the unit itself is confined to the zone's nodes, and a drop-in gives it the zone's slice
for its next start.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.zones import find_zone
from zoned.errors import NoSuchCgroup, NoSuchUnit, NotAMember, Unsupported, ZonedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.engine.machine import Machine
    from zoned.kernel.cgroup.protocol import UnitDriver
    from zoned.model.zone import Zone

_log = logging.getLogger(__name__)


def attach(machine: Machine, name: str, unit: str) -> None:
    """Confine a running unit to the zone's nodes now, and have it start in the zone next time.

    Its pages stay charged to its own cgroup until then; what is still elsewhere is moved by the
    kernel. Raises NoSuchUnit, MachineError; after an error the unit is as it was.
    """
    zone = find_zone(machine, name)
    _leave_others(machine, name, unit)
    try:
        _confine(machine, unit, zone.nodes)
        driver(machine).place_unit(unit, zone.name)
    except ZonedError:
        try_to_lift(machine, unit)
        raise
    machine.store.put(replace(zone, units=tuple(dict.fromkeys((*zone.units, unit)))))


def widen_unit(machine: Machine, zone: Zone, unit: str) -> None:
    """Let a unit that is confined use the zone's nodes too, while its pages move there."""
    units = driver(machine)
    former = units.unit_nodes(unit)
    if former and not zone.nodes <= former:
        machine.ledger.unit_confined(unit, former)
        units.confine_unit(unit, former | zone.nodes)


def unwiden_unit(machine: Machine, unit: str) -> None:
    """Undo `widen_unit`: the unit may use what it could before, or its zone's nodes if it has one.

    The log tells where that fails.
    """
    home = next((zone for zone in machine.store.zones.values() if unit in zone.units), None)
    if home is None:
        try_to_lift(machine, unit)
        return
    with _told(f"cannot confine {unit}"), contextlib.suppress(NoSuchUnit):
        _confine(machine, unit, home.mems)


def confine_attached(machine: Machine, zone: Zone) -> None:
    """Have the units that are attached to a zone use the nodes that it may use now."""
    for unit in zone.units:
        with contextlib.suppress(NoSuchUnit):
            _confine(machine, unit, zone.mems)


def pids_of_attached(machine: Machine, zone: Zone) -> tuple[int, ...]:
    """Return the processes of the units that are attached to a zone and still run outside."""
    found: list[int] = []
    for unit in zone.units if machine.units else ():
        with contextlib.suppress(NoSuchUnit, NoSuchCgroup):
            found += machine.groups.pids_below(driver(machine).unit_cgroup(unit))
    return tuple(found)


def check_attached(machine: Machine, zone: Zone, unit: str) -> str:
    """Return the unit's own name. Raises NotAMember where it is not attached to the zone."""
    with contextlib.suppress(NoSuchUnit):
        unit = driver(machine).canonical(unit)
    if unit not in zone.units:
        raise NotAMember(f"{unit} is not attached to zone {zone.name}")
    return unit


def try_to_lift(machine: Machine, unit: str) -> None:
    """Take the marks of an attach that failed off a unit; the log tells where that fails too."""
    with _told(f"cannot free {unit}"):
        lift_unit(machine, unit)


def lift_unit(machine: Machine, unit: str) -> None:
    """Take the marks of `attach_unit` off a unit; one that is gone is fine.

    Raises MachineError; the unit is then still attached.
    """
    # First it is no longer wanted, so that the next start goes on if this is cut off.
    homes = [zone for zone in machine.store.zones.values() if unit in zone.units]
    for zone in homes:
        left = tuple(each for each in zone.units if each != unit)
        machine.store.put(replace(zone, units=left))
    try:
        _undo(machine, unit)
    except ZonedError:
        for zone in homes:
            machine.store.put(zone)
        raise


def restore_units(machine: Machine) -> None:
    """Make what is recorded true again: after a reboot, or a daemon that was killed half-way.

    A unit that is not running is only placed, so that it starts in its zone.
    """
    attached = {unit: zone for zone in machine.store.zones.values() for unit in zone.units}
    recorded = set(machine.ledger.touched.units)
    for unit in recorded - set(attached):
        with _told(f"cannot free {unit}"):
            _undo(machine, unit)
    for unit in set(attached) - recorded:
        with _told(f"cannot attach {unit}"):
            _restore(machine, attached[unit], unit)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Go on after a failure, which the log tells of."""
    try:
        yield
    except ZonedError as error:
        _log.warning("%s: [%s] %s", what, error.code, error)


def _restore(machine: Machine, zone: Zone, unit: str) -> None:
    with contextlib.suppress(NoSuchUnit):
        _confine(machine, unit, zone.mems)
    driver(machine).place_unit(unit, zone.name)


def _confine(machine: Machine, unit: str, nodes: frozenset[int]) -> None:
    units = driver(machine)
    machine.ledger.unit_confined(unit, units.unit_nodes(unit))
    units.confine_unit(unit, nodes)


def _undo(machine: Machine, unit: str) -> None:
    units = driver(machine)
    units.unplace_unit(unit)
    former = machine.ledger.touched.units.get(unit)
    if former is not None:
        with contextlib.suppress(NoSuchUnit):
            units.confine_unit(unit, former)
    machine.ledger.unit_lifted(unit)


def _leave_others(machine: Machine, name: str, unit: str) -> None:
    """Take the unit out of any other zone that it is attached to."""
    for zone in machine.store.zones.values():
        if zone.name != name and unit in zone.units:
            lift_unit(machine, unit)


def driver(machine: Machine) -> UnitDriver:
    """Return what talks to the service manager. Raises Unsupported where there is none."""
    if machine.units is None:
        raise Unsupported("there is no systemd here to attach units of", hint="attach by --pid")
    return machine.units
