# SPDX-License-Identifier: Apache-2.0
"""What is found wrong, and what is left unsaid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.fakes import GIB, MIB
from zoned.engine.admission import Capacity
from zoned.engine.verify import (
    off_node_bytes,
    verify_capacity,
    verify_groups,
    verify_kernel_memory,
    verify_zone,
)
from zoned.model.alert import Alert, AlertCode
from zoned.model.topology import Amount, Node, Topology
from zoned.model.zone import Backing, Group, Limits, Zone, ZoneSpec

SPEC = ZoneSpec(name="db", size=GIB, backing=Backing.LIMIT)
ZONE = Zone(spec=SPEC, shares={1: GIB}, cpus=None)
GROUP = Group(zone="db", path="/zone/db", limits=Limits(), effective_mems=frozenset({1}))


def codes(zone: Zone, group: Group | None, *, protects: bool = True) -> list[AlertCode]:
    return [alert.code for alert in verify_zone(zone, group, protects=protects)]


def test_all_is_well() -> None:
    assert codes(ZONE, GROUP) == []
    assert codes(ZONE, None) == []
    assert codes(ZONE, replace(GROUP, effective_mems=None)) == []


def test_a_reserve_without_protection_is_weak() -> None:
    reserve = replace(ZONE, spec=replace(SPEC, backing=Backing.RESERVE))
    assert codes(reserve, GROUP, protects=True) == []
    assert codes(reserve, GROUP, protects=False) == [AlertCode.WEAK_PROTECTION]
    assert codes(ZONE, GROUP, protects=False) == []


def test_other_nodes_in_force() -> None:
    group = replace(GROUP, effective_mems=frozenset({0, 1}))
    (alert,) = verify_zone(ZONE, group, protects=True)
    assert alert == Alert(
        code=AlertCode.UNCONFINED,
        subject="db",
        message="nodes 0-1 are in force instead of 1",
    )


@pytest.mark.parametrize(
    ("used", "off", "found"),
    [
        (GIB, 16 * MIB, False),
        (GIB, 16 * MIB + 1, True),
        (None, 16 * MIB + 1, True),
        (100 * GIB, GIB, False),
        (100 * GIB, GIB + 1, True),
    ],
)
def test_memory_on_other_nodes(used: int | None, off: int, *, found: bool) -> None:
    group = replace(GROUP, used=used, by_node={0: off - 1, 1: GIB, 2: 1})
    assert off_node_bytes(ZONE, group) == off
    assert (AlertCode.OFF_NODE in codes(ZONE, group)) is found


def test_zones_without_memory_for_the_kernel() -> None:
    def node(number: int, *, normal: bool | None, total: int = GIB) -> Node:
        return Node(id=number, memory=Amount(total=total), has_normal_memory=normal)

    zones = [replace(ZONE, shares={1: GIB, 2: 0}), replace(ZONE, leaving={0: GIB})]
    both = (node(1, normal=False), node(2, normal=False))
    (alert,) = verify_kernel_memory(zones, Topology(nodes=(node(0, normal=True), *both)))
    assert (alert.code, alert.subject) == (AlertCode.NO_KERNEL_MEMORY, "db")
    assert alert.message == "node 1-2 has only movable memory"
    assert not list(verify_kernel_memory(zones, Topology(nodes=(node(1, normal=None),))))
    # What has no memory at all is another matter.
    gone = Topology(nodes=(node(1, normal=False, total=0),))
    assert not list(verify_kernel_memory(zones, gone))


def test_groups_that_stand_for_no_zone() -> None:
    groups = {
        "db": GROUP,
        "empty": replace(GROUP, zone="empty"),
        "left": replace(GROUP, zone="left", path="/zone/left", pids=(1, 2)),
        "other": replace(GROUP, zone="other", path="/zone/other"),
    }
    found = list(verify_groups({"db"}, groups, {"db", "empty", "left"}))
    assert [(alert.code, alert.subject) for alert in found] == [
        (AlertCode.LEFTOVER, "left"),
        (AlertCode.UNKNOWN_GROUP, "other"),
    ]
    assert found[0].message == "/zone/left has 2 members and is no zone any more"


@pytest.mark.parametrize(
    ("reserved", "found"), [(0, False), (3 * GIB, False), (3 * GIB + 1, True), (5 * GIB, True)]
)
def test_a_node_that_shrank(reserved: int, *, found: bool) -> None:
    capacity = Capacity(node=2, total=4 * GIB, system=GIB, reserved=reserved)
    alerts = list(verify_capacity([capacity]))
    assert [alert.code for alert in alerts] == [AlertCode.OVERCOMMITTED] * found
    assert all(
        alert.subject == "node 2" and "it can give 3GiB" in alert.message for alert in alerts
    )


def test_without_zones_nothing_is_overcommitted() -> None:
    assert not list(verify_capacity([Capacity(node=0, total=1, system=5, reserved=0)]))
