# SPDX-License-Identifier: Apache-2.0
"""What users are shown, and that looking runs beside changing."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_jobs import at_once
from tests.unit.fakes import GIB, MIB, FakeUnits, World, make_world, started
from zoned import __version__
from zoned.api.types import CapacityInfo, EventsInfo, LimitsInfo, MemberInfo, NodeUsage
from zoned.daemon import views
from zoned.engine import units
from zoned.engine.jobs.control import JobControl
from zoned.errors import NoSuchZone, ZonedError
from zoned.model.alert import Alert, AlertCode
from zoned.model.job import JobKind
from zoned.model.policy import Policy, SystemReserve
from zoned.model.zone import Backing, Group, Pressure, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.engine import Engine

WEAK = Alert(code=AlertCode.WEAK_PROTECTION, subject="db", message="weak")
BROKEN = Alert(code=AlertCode.LIMITS_DIFFER, subject="db", message="differ")
OTHER = Alert(code=AlertCode.UNCONFINED, subject="web", message="other")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, units=FakeUnits({"x.service": "/system/x"}))


@pytest.fixture
def engine(world: World) -> Engine:
    engine = started(world, Policy(reserve=SystemReserve(default=GIB), files=("a.yaml",)))
    engine.create(ZoneSpec(name="web", size=GIB, nodes="1", backing=Backing.LIMIT, cpus="none"))
    engine.create(ZoneSpec(name="db", size=GIB, nodes="0", users=("jo",)))
    group = world.groups.made["db"]
    group.used, group.oom_kill, group.by_node = 5 * MIB, 3, {0: 4 * MIB, 1: MIB}
    world.add_process(7, "/zone/db")
    units.attach(engine.machine, "db", "x.service")
    return engine


def test_list(engine: Engine) -> None:
    db, web = views.list_zones(engine.machine, [OTHER])
    assert (db.name, db.size, db.backing, db.nodes, db.cpus) == ("db", GIB, "reserve", [0], "0-1")
    assert (db.state, db.used, db.foreign, db.members) == ("active", 5 * MIB, 0, 1)
    assert (web.name, web.backing, web.cpus, web.state) == ("web", "limit", None, "failed")


@pytest.mark.parametrize(
    ("alerts", "state"),
    [([], "active"), ([OTHER], "active"), ([WEAK], "degraded"), ([WEAK, BROKEN], "failed")],
)
def test_states(engine: Engine, alerts: list[Alert], state: str) -> None:
    assert views.list_zones(engine.machine, alerts)[0].state == state
    found = views.show_zone(engine.machine, "db", alerts)
    assert found.state == state
    assert [alert.code for alert in found.alerts] == [
        alert.code.value for alert in alerts if alert.subject == "db"
    ]


def test_show(engine: Engine) -> None:
    found = views.show_zone(engine.machine, "db", [])
    limits = LimitsInfo(
        max=GIB, high=None, min=GIB, swap=0, nodes="0", cpus="0-1", exclusive_cpus=False
    )
    assert found.limits == found.wanted == limits
    assert found.by_node == [
        NodeUsage(node=0, share=GIB, used=4 * MIB),
        NodeUsage(node=1, share=0, used=MIB),
    ]
    assert found.processes == [MemberInfo(pid=7, name="work", anonymous=MIB)]
    assert found.events == EventsInfo(oom=None, oom_kill=3, max=None, high=None)
    assert (found.origin, found.users, found.units) == ("request", ["jo"], ["x.service"])
    assert (found.cgroup, found.pressure) == ("/zone/db", None)
    with pytest.raises(NoSuchZone):
        views.show_zone(engine.machine, "ghost", [])


def test_show_where_the_kernel_tells_more(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = world.groups.group("db")
    assert group is not None
    pressure = Pressure(some_10s=1.5, some_60s=1.0, full_10s=0.5, full_60s=0.0)
    rich = replace(group, pressure=pressure, peak=9, swap_used=8, by_node={})

    def tell(_: str) -> Group:
        return rich

    monkeypatch.setattr(world.groups, "group", tell)
    found = views.show_zone(engine.machine, "db", [])
    assert (found.peak, found.swap_used) == (9, 8)
    assert found.pressure is not None
    assert (found.pressure.some_10s, found.pressure.full_10s) == (1.5, 0.5)
    assert found.by_node == [NodeUsage(node=0, share=GIB, used=None)]


def test_show_of_a_zone_without_a_group(engine: Engine, world: World) -> None:
    world.groups.made.clear()
    found = views.show_zone(engine.machine, "db", [])
    assert (found.state, found.used, found.foreign, found.members) == ("missing", None, None, 0)
    assert (found.limits, found.cgroup, found.processes) == (None, None, [])
    assert found.wanted.max == GIB
    assert found.events == EventsInfo(oom=None, oom_kill=None, max=None, high=None)


def test_a_member_that_ends_meanwhile_is_left_out(engine: Engine, world: World) -> None:
    world.groups.where[8] = "/zone/db"
    assert [each.pid for each in views.show_zone(engine.machine, "db", []).processes] == [7]


def test_status(engine: Engine, world: World) -> None:
    world.groups.where[99] = "/zone/unwanted"
    found = views.status(engine.machine, [])
    assert (found.version, found.ok, found.zones, found.members) == (__version__, True, 2, 1)
    assert (found.cgroups, found.protects, found.group) == ("v2", True, "/zone")
    assert found.policy_files == ["a.yaml"]
    assert found.nodes == [
        CapacityInfo(
            node=0, total=4 * GIB, free=512 << 10, system=GIB, reserved=GIB, available=2 * GIB
        ),
        CapacityInfo(
            node=1, total=4 * GIB, free=512 << 10, system=GIB, reserved=0, available=3 * GIB
        ),
    ]
    assert views.status(engine.machine, [WEAK]).ok is False


def test_looking_runs_beside_changing(engine: Engine) -> None:
    """Readers see one zone or none of it, whatever the writer does meanwhile."""
    stop, problems = threading.Event(), list[BaseException]()

    def look() -> None:
        while not stop.is_set():
            try:
                names = {zone.name for zone in views.list_zones(engine.machine, engine.alerts)}
                assert {"db", "web"} <= names
                views.status(engine.machine, engine.alerts)
                views.show_zone(engine.machine, "new", engine.alerts)
            except NoSuchZone:
                pass
            except (ZonedError, AssertionError, RuntimeError, LookupError) as error:
                problems.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        engine.create(ZoneSpec(name="new", size=GIB))
        engine.resize("new", GIB // 2)
        _, destroy = engine.prepare(JobKind.DESTROY, {"name": "new"})
        destroy(JobControl(at_once, lambda: None))
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems
