# SPDX-License-Identifier: Apache-2.0
"""Putting programs into zones and taking them out again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zoned.engine.ledger import Member
from zoned.engine.units import Moved, attach_unit, lift_unit
from zoned.engine.zones import find_zone, refuse_units
from zoned.errors import (
    BadInput,
    HasMembers,
    NoSuchCgroup,
    NoSuchProcess,
    NotAMember,
    NotConfinable,
    TryLater,
)
from zoned.kernel.migrate import move_all_pages
from zoned.kernel.process import find

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned.engine.machine import Machine
    from zoned.model.zone import Zone

_PASSES = 50
"""How often members are counted again: a program that forks faster than that is left."""


def enter(machine: Machine, name: str, pid: int) -> None:
    """Put the process that asks for it into the zone. Raises NoSuchZone, NoSuchProcess."""
    zone = find_zone(machine, name)
    _record(machine, zone, [pid])
    machine.groups.attach(zone.name, [pid])


def attach_process(machine: Machine, name: str, pid: int) -> Moved:
    """Make a running process a member: its pages move to the zone's nodes.

    Raises NoSuchZone, NoSuchProcess, KernelThread, NotConfinable.
    """
    zone = find_zone(machine, name)
    _refuse_vital(pid)
    _record(machine, zone, [pid])
    move_all_pages(machine.root, pid, zone.nodes)
    machine.groups.attach(zone.name, [pid])
    find(machine.root, pid)
    return Moved(processes=1)


def attach_cgroup(machine: Machine, name: str, cgroup: str) -> Moved:
    """Make all processes of a cgroup members, also those that it forks meanwhile.

    Raises NoSuchZone, NoSuchCgroup, TryLater where it forks without end.
    """
    zone = find_zone(machine, name)
    group = machine.groups.group(name)
    if group is not None and f"{group.path}/".startswith(f"{cgroup.rstrip('/')}/"):
        raise NoSuchCgroup(f"{cgroup} holds zone {name} itself", hint="name another cgroup")

    def move(pids: Sequence[int]) -> Moved:
        for pid in pids:
            _refuse_vital(pid)
        return _each(pids, lambda pid: attach_process(machine, zone.name, pid))

    return _until_empty(lambda: machine.groups.pids_below(cgroup), move, cgroup)


def detach_process(machine: Machine, name: str, pid: int) -> Moved:
    """Put a member back to where it came from. Raises NotAMember."""
    find_zone(machine, name)
    group = machine.groups.group(name)
    if group is None or pid not in group.pids:
        raise NotAMember(f"process {pid} is no member of zone {name}")
    return _put_back(machine, [pid])


def detach_cgroup(machine: Machine, name: str, cgroup: str) -> Moved:
    """Put back every member that came from a cgroup. Raises NotAMember where there is none."""
    find_zone(machine, name)
    group = machine.groups.group(name)
    former = _origins(machine)
    pids = [pid for pid in (group.pids if group else ()) if former(pid) == cgroup]
    if not pids:
        raise NotAMember(f"no member of zone {name} came from cgroup {cgroup}")
    return _put_back(machine, pids)


def drain(machine: Machine, name: str, target: str) -> Moved:
    """Move every member out: to another zone, or to where it came from (`root`).

    Raises UnitInZone, NoSuchZone, TryLater where members are forked without end.
    """
    zone = find_zone(machine, name)
    if target != "root":
        find_zone(machine, target)
    if target == name:
        raise HasMembers(f"zone {name} cannot be drained into itself", hint="name another zone")
    refuse_units(machine, name)
    for unit in zone.units:
        lift_unit(machine, unit)
        if target != "root":
            attach_unit(machine, target, unit)

    released: list[int] = []

    def move(pids: Sequence[int]) -> Moved:
        if target != "root":
            return _each(pids, lambda pid: attach_process(machine, target, pid))
        released.extend(pids)
        return _release(machine, pids)

    moved = _until_empty(lambda: _pids(machine, name), move, f"zone {name}")
    # Not before: what they fork meanwhile belongs to where they came from.
    machine.ledger.members_gone(released)
    return moved


def kill(machine: Machine, name: str) -> None:
    """End every member with SIGKILL. Raises TryLater where some remain."""
    zone = find_zone(machine, name)
    for unit in zone.units:
        lift_unit(machine, unit)
    machine.groups.kill(name)


def is_alive(machine: Machine, member: Member) -> bool:
    """Return whether a recorded process is still the same one."""
    try:
        return find(machine.root, member.pid).start_time == member.start_time
    except BadInput:
        return False


def _pids(machine: Machine, name: str) -> tuple[int, ...]:
    group = machine.groups.group(name)
    return group.pids if group else ()


def _record(machine: Machine, zone: Zone, pids: Sequence[int]) -> None:
    members = []
    for pid in pids:
        process = find(machine.root, pid)
        members.append(
            Member(
                pid=pid,
                start_time=process.start_time,
                zone=zone.name,
                former=machine.groups.location(pid),
            )
        )
    machine.ledger.members_added(members)


def _put_back(machine: Machine, pids: Sequence[int]) -> Moved:
    moved = _release(machine, pids)
    machine.ledger.members_gone(pids)
    return moved


def _release(machine: Machine, pids: Sequence[int]) -> Moved:
    former = _origins(machine)
    by_former: dict[str | None, list[int]] = {}
    for pid in pids:
        by_former.setdefault(former(pid), []).append(pid)
    for place, group in by_former.items():
        machine.groups.release(group, place)
    return Moved(processes=len(pids))


def _origins(machine: Machine) -> Callable[[int], str | None]:
    """Return what tells the cgroup that a member came from, or the one that forked it."""
    recorded = {(each.pid, each.start_time): each for each in machine.ledger.touched.members}

    def former(pid: int) -> str | None:
        try:
            process = find(machine.root, pid)
        except BadInput:
            return None
        member = recorded.get((pid, process.start_time))
        if member is not None:
            return member.former
        return former(process.ppid) if process.ppid > 1 else None

    return former


def _each(pids: Sequence[int], act: Callable[[int], Moved]) -> Moved:
    done = gone = 0
    for pid in pids:
        try:
            act(pid)
            done += 1
        except NoSuchProcess:
            gone += 1
    return Moved(processes=done, gone=gone)


def _until_empty(
    count: Callable[[], Sequence[int]], move: Callable[[Sequence[int]], Moved], what: str
) -> Moved:
    total = Moved()
    for _ in range(_PASSES):
        pids = count()
        if not pids:
            return total
        moved = move(pids)
        total = Moved(processes=total.processes + moved.processes, gone=total.gone + moved.gone)
    raise TryLater(
        f"{what} still has {len(count())} processes after {_PASSES} passes",
        hint="it makes new ones faster than they can be moved; stop or freeze it first",
    )


def _refuse_vital(pid: int) -> None:
    if pid in {1, os.getpid()}:
        raise NotConfinable(f"process {pid} cannot be put into a zone")
