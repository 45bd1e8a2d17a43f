# SPDX-License-Identifier: Apache-2.0
"""What users are shown of zones. Reads only; may run beside the thread that changes things."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from zoned import __version__
from zoned.api.types import (
    AlertInfo,
    BlockInfo,
    CapacityInfo,
    EventsInfo,
    LimitsInfo,
    MemberInfo,
    NodeUsage,
    PressureInfo,
    StatusInfo,
    ZoneDetail,
    ZoneInfo,
)
from zoned.engine.derive import limits_of
from zoned.engine.foreign import foreign_bytes
from zoned.engine.zones import capacity_of, find_zone
from zoned.errors import ZonedError
from zoned.idset import format_ids
from zoned.kernel.node import read_topology
from zoned.kernel.process import anon_rss, find
from zoned.model.alert import AlertCode
from zoned.model.block import zone_owner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.engine.machine import Machine
    from zoned.model.alert import Alert
    from zoned.model.zone import Events, Group, Limits, Zone


def list_zones(machine: Machine, alerts: Iterable[Alert]) -> list[ZoneInfo]:
    """Return one line a zone, by name."""
    alerts = list(alerts)
    groups = {group.zone: group for group in machine.groups.groups()}
    return [
        _line(machine, zone, groups.get(name), alerts)
        for name, zone in sorted(machine.store.zones.items())
    ]


def show_zone(machine: Machine, name: str, alerts: Iterable[Alert]) -> ZoneDetail:
    """Return all there is to know about one zone. Raises NoSuchZone."""
    zone = find_zone(machine, name)
    alerts = [alert for alert in alerts if alert.subject == name]
    group = machine.groups.group(name)
    line = _line(machine, zone, group, alerts)
    return ZoneDetail(
        **dataclasses.asdict(line),
        origin=zone.origin.value,
        users=list(zone.spec.users),
        units=list(zone.units),
        cgroup=group.path if group else None,
        by_node=_by_node(zone, group),
        limits=_limits(group.limits) if group else None,
        wanted=_limits(limits_of(zone)),
        peak=group.peak if group else None,
        swap_used=group.swap_used if group else None,
        pressure=_pressure(group),
        events=_events(group.events) if group else _NO_EVENTS,
        processes=_members(machine, group),
        alerts=[alert_info(alert) for alert in alerts],
        blocks=sorted(
            number
            for number, each in machine.ledger.touched.blocks.items()
            if each.owner == zone_owner(name)
        ),
    )


def held_blocks(machine: Machine) -> list[BlockInfo]:
    """Return the memory blocks that zoned holds, by number."""
    return [
        BlockInfo(id=number, owner=each.owner, former=each.former)
        for number, each in sorted(machine.ledger.touched.blocks.items())
    ]


def status(machine: Machine, alerts: Iterable[Alert]) -> StatusInfo:
    """Return the one look that tells whether all is well."""
    alerts = list(alerts)
    groups = machine.groups.groups()
    topology = read_topology(machine.root)
    capacity = capacity_of(machine)
    free = {node.id: node.memory.free for node in topology.nodes}
    return StatusInfo(
        version=__version__,
        ok=not alerts,
        cgroups=machine.groups.kind,
        protects=machine.groups.protects,
        group=machine.groups.parent,
        zones=len(machine.store.zones),
        members=sum(len(group.pids) for group in groups if group.zone in machine.store.zones),
        nodes=[
            CapacityInfo(
                node=each.node,
                total=each.total,
                free=free.get(each.node),
                system=each.system,
                reserved=each.reserved,
                available=max(0, each.available),
            )
            for each in capacity.values()
        ],
        policy_files=list(machine.policy.files),
        reservations=sum(each.standing for each in machine.ledger.touched.reservations.values()),
        alerts=[alert_info(alert) for alert in alerts],
    )


def _line(machine: Machine, zone: Zone, group: Group | None, alerts: Iterable[Alert]) -> ZoneInfo:
    return ZoneInfo(
        name=zone.name,
        size=zone.spec.size,
        backing=zone.spec.backing.value,
        nodes=sorted(zone.nodes),
        cpus=None if zone.cpus is None else format_ids(zone.cpus),
        state=_state(zone, group, alerts),
        used=group.used if group else None,
        foreign=foreign_bytes(machine.root, group),
        members=len(group.pids) if group else 0,
    )


def _state(zone: Zone, group: Group | None, alerts: Iterable[Alert]) -> str:
    codes = {alert.code for alert in alerts if alert.subject == zone.name}
    if group is None:
        return "missing"
    if codes & {AlertCode.NOT_APPLIED, AlertCode.LIMITS_DIFFER, AlertCode.UNCONFINED}:
        return "failed"
    return "degraded" if codes else "active"


def _by_node(zone: Zone, group: Group | None) -> list[NodeUsage]:
    used = dict(group.by_node) if group else {}
    nodes = sorted(zone.nodes | {node for node, size in used.items() if size})
    known = bool(used)
    return [
        NodeUsage(
            node=node, share=zone.shares.get(node, 0), used=used.get(node, 0) if known else None
        )
        for node in nodes
    ]


def _limits(limits: Limits) -> LimitsInfo:
    return LimitsInfo(
        max=limits.max,
        high=limits.high,
        min=limits.min,
        swap=limits.swap,
        nodes=None if limits.mems is None else format_ids(limits.mems),
        cpus=None if limits.cpus is None else format_ids(limits.cpus),
        exclusive_cpus=limits.exclusive_cpus,
    )


_NO_EVENTS = EventsInfo(oom=None, oom_kill=None, max=None, high=None)


def _events(events: Events) -> EventsInfo:
    return EventsInfo(oom=events.oom, oom_kill=events.oom_kill, max=events.max, high=events.high)


def _pressure(group: Group | None) -> PressureInfo | None:
    if group is None or group.pressure is None:
        return None
    found = group.pressure
    return PressureInfo(
        some_10s=found.some_10s,
        some_60s=found.some_60s,
        full_10s=found.full_10s,
        full_60s=found.full_60s,
    )


def _members(machine: Machine, group: Group | None) -> list[MemberInfo]:
    members = []
    for pid in group.pids if group else ():
        try:
            name = find(machine.root, pid).name
        except ZonedError:
            continue
        members.append(MemberInfo(pid=pid, name=name, anonymous=anon_rss(machine.root, pid)))
    return members


def alert_info(alert: Alert) -> AlertInfo:
    """Return what is shown of an alert."""
    return AlertInfo(code=alert.code.value, subject=alert.subject, message=alert.message)
