# SPDX-License-Identifier: Apache-2.0
"""Units of the service manager in zones: confined where they run, started in the zone next time.

The pages of a running service stay charged to its own cgroup when its processes move, so they do
not move: the unit itself is confined to the zone's nodes, and a drop-in gives it the zone's slice
for its next start.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned.engine.zones import find_zone
from zoned.errors import NoSuchProcess, NoSuchUnit, NotAMember, Unsupported, ZonedError
from zoned.kernel.migrate import move_all_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.engine.machine import Machine
    from zoned.kernel.cgroup.protocol import UnitDriver
    from zoned.model.zone import Zone

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What an attach or detach did."""

    processes: int = 0
    gone: int = 0
    notes: tuple[str, ...] = ()


def attach_unit(machine: Machine, name: str, unit: str) -> Moved:
    """Confine a running unit to the zone's nodes now, and have it start in the zone next time.

    Its pages stay charged to its own cgroup until then. Raises Unsupported, NoSuchUnit,
    MachineError; after an error the unit is as it was.
    """
    zone = find_zone(machine, name)
    units = _driver(machine)
    unit = units.canonical(unit)
    pids = machine.groups.pids_below(units.unit_cgroup(unit))
    _leave_others(machine, name, unit)
    try:
        _confine(machine, zone, unit, pids)
        units.place_unit(unit, zone.name)
    except ZonedError:
        with _told(f"cannot free {unit}"):
            lift_unit(machine, unit)
        raise
    machine.store.put(replace(zone, units=tuple(dict.fromkeys((*zone.units, unit)))))
    note = f"{unit} is charged to its own cgroup until it is restarted; then it starts in the zone"
    return Moved(processes=len(pids), notes=(note,))


def detach_unit(machine: Machine, name: str, unit: str) -> Moved:
    """Undo `attach_unit`: the unit may use the nodes that it could before. Raises NotAMember."""
    zone = find_zone(machine, name)
    with contextlib.suppress(NoSuchUnit):
        unit = _driver(machine).canonical(unit)
    if unit not in zone.units:
        raise NotAMember(f"{unit} is not attached to zone {name}")
    lift_unit(machine, unit)
    return Moved(notes=(f"{unit} is no longer confined to zone {name}",))


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
    recorded = set(machine.ledger.touched.units or {})
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
    units = _driver(machine)
    with contextlib.suppress(NoSuchUnit):
        _confine(machine, zone, unit, machine.groups.pids_below(units.unit_cgroup(unit)))
    units.place_unit(unit, zone.name)


def _confine(machine: Machine, zone: Zone, unit: str, pids: tuple[int, ...]) -> None:
    units = _driver(machine)
    machine.ledger.unit_confined(unit, units.unit_nodes(unit))
    units.confine_unit(unit, zone.nodes)
    for pid in pids:
        with contextlib.suppress(NoSuchProcess):
            move_all_pages(machine.root, pid, zone.nodes)


def _undo(machine: Machine, unit: str) -> None:
    units = _driver(machine)
    units.unplace_unit(unit)
    with contextlib.suppress(NoSuchUnit):
        units.confine_unit(unit, (machine.ledger.touched.units or {}).get(unit, frozenset()))
    machine.ledger.unit_lifted(unit)


def _leave_others(machine: Machine, name: str, unit: str) -> None:
    """Take the unit out of any other zone that it is attached to."""
    for zone in machine.store.zones.values():
        if zone.name != name and unit in zone.units:
            lift_unit(machine, unit)


def _driver(machine: Machine) -> UnitDriver:
    if machine.units is None:
        raise Unsupported("there is no systemd here to attach units of", hint="attach by --pid")
    return machine.units
