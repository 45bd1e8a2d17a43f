# SPDX-License-Identifier: Apache-2.0
"""Who is in which zone: the steps that change it, each short. Pages are moved by operations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from zoned.engine.dma.lessees import refuse_lessees
from zoned.engine.ledger import Member
from zoned.engine.units import lift_unit
from zoned.engine.zones import find_zone, refuse_units
from zoned.errors import BadInput, NoSuchCgroup, NoSuchProcess, NotAMember, NotConfinable, TryLater
from zoned.kernel.process import allowed_nodes, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from zoned.engine.machine import Machine
    from zoned.model.zone import Zone

_PASSES = 50
"""How often members are counted again: a program that forks faster than that is left."""

_T = TypeVar("_T")


def enter(machine: Machine, name: str, pid: int) -> None:
    """Put the process that asks for it into the zone.

    Raises NoSuchZone, NoSuchProcess, ReservationInUse.
    """
    zone = find_zone(machine, name)
    refuse_lessees(machine, (find(machine.root, each) for each in [pid]), zone.mems)
    _record(machine, zone, pid)
    machine.groups.attach(zone.name, [pid])


def admit(machine: Machine, zone: Zone, pids: Sequence[int]) -> list[int]:
    """Make processes members; return those that cannot be any more, because they end.

    What they have on other nodes than the zone may use now is moved by the kernel, at once.
    Raises NotConfinable, ReservationInUse.
    """
    ended = []
    for pid in pids:
        refuse_vital(pid)
        try:
            refuse_lessees(machine, (find(machine.root, each) for each in [pid]), zone.mems)
            _record(machine, zone, pid)
            machine.groups.attach(zone.name, [pid])
        except NoSuchProcess:
            ended.append(pid)
    return ended


def put_back(machine: Machine, pids: Sequence[int]) -> None:
    """Put members back to the cgroups that they came from, or that forked them.

    What is known of them stays in the ledger until `forget`, for those that they fork meanwhile.
    """
    _release(machine, pids)


def forget(machine: Machine, name: str, pids: Iterable[int]) -> None:
    """Drop from the ledger those that are no members of the zone any more."""
    machine.ledger.members_gone(frozenset(pids).difference(machine.members_of(name)))


def send_home(machine: Machine, name: str) -> None:
    """Put all members of a zone back at once, their pages with them.

    Raises UnitInZone, TryLater where members are forked without end.
    """
    zone = find_zone(machine, name)
    refuse_units(machine, name)
    for unit in zone.units:
        lift_unit(machine, unit)
    released: list[int] = []
    for _ in range(_PASSES):
        pids = machine.members_of(name)
        if not pids:
            # Not before: what they fork meanwhile belongs to where they came from.
            machine.ledger.members_gone(released)
            return
        _release(machine, pids)
        released.extend(pids)
    raise TryLater(
        f"zone {name} still has {len(machine.members_of(name))} processes after {_PASSES} passes",
        hint="it makes new ones faster than they can be moved; stop or freeze it first",
    )


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


def refuse_vital(pid: int) -> None:
    """Raise NotConfinable for what must never be in a zone."""
    if pid in {1, os.getpid()}:
        raise NotConfinable(f"process {pid} cannot be put into a zone")


def check_cgroup(machine: Machine, zone: Zone, cgroup: str) -> None:
    """Raise NoSuchCgroup or NotConfinable where a cgroup's processes cannot become members."""
    group = machine.groups.group(zone.name)
    if group is not None and f"{group.path}/".startswith(f"{cgroup.rstrip('/')}/"):
        raise NoSuchCgroup(f"{cgroup} holds zone {zone.name} itself", hint="name another cgroup")
    for pid in machine.groups.pids_below(cgroup):
        refuse_vital(pid)


def check_members(
    machine: Machine, name: str, pids: Sequence[int], what: str, value: object
) -> None:
    """Raise NotAMember where what is to be detached is nobody, NoSuchZone."""
    find_zone(machine, name)
    if not pids:
        if what == "pid":
            raise NotAMember(f"process {value} is no member of zone {name}")
        raise NotAMember(f"no member of zone {name} came from cgroup {value}")


def origins(machine: Machine) -> Callable[[int], str | None]:
    """Return what tells the cgroup that a member came from, or the one that forked it."""
    return _of_record(machine, lambda member: member.former)


def former_nodes(machine: Machine) -> Callable[[int], frozenset[int] | None]:
    """Return what tells the nodes that a member could use before; None is unknown."""
    return _of_record(machine, lambda member: member.nodes)


def _of_record(machine: Machine, get: Callable[[Member], _T]) -> Callable[[int], _T | None]:
    recorded = {(each.pid, each.start_time): each for each in machine.ledger.touched.members}

    def former(pid: int) -> _T | None:
        try:
            process = find(machine.root, pid)
        except BadInput:
            return None
        member = recorded.get((pid, process.start_time))
        if member is not None:
            return get(member)
        return former(process.ppid) if process.ppid > 1 else None

    return former


def _record(machine: Machine, zone: Zone, pid: int) -> None:
    process = find(machine.root, pid)
    member = Member(
        pid=pid,
        start_time=process.start_time,
        zone=zone.name,
        former=machine.groups.location(pid),
        nodes=allowed_nodes(machine.root, pid),
    )
    machine.ledger.members_added([member])


def _release(machine: Machine, pids: Sequence[int]) -> None:
    former = origins(machine)
    by_former: dict[str | None, list[int]] = {}
    for pid in pids:
        by_former.setdefault(former(pid), []).append(pid)
    for place, group in by_former.items():
        machine.groups.release(group, place)
