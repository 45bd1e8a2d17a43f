# SPDX-License-Identifier: Apache-2.0
"""Making, resizing and destroying zones; a request that fails changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fakes import GIB, MIB, FakeGroup, FakeUnits, World, make_world, run_job, started
from zoned.errors import (
    BadInput,
    BadName,
    BadSize,
    BelowUse,
    HasMembers,
    InPolicy,
    KernelRefused,
    NameTaken,
    NoCapacity,
    NoSuchZone,
    UnitInZone,
    UnknownNode,
    UsageError,
    ZonedError,
)
from zoned.model.job import JobKind
from zoned.model.policy import Policy
from zoned.model.zone import Backing, Limits, Origin, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.engine import Engine


def spec(name: str = "db", size: int = GIB, **more: Any) -> ZoneSpec:
    return ZoneSpec(name=name, size=size, **more)


def destroy(engine: Engine, *, drain: str | None = None, kill: bool = False) -> None:
    run_job(engine, JobKind.DESTROY, name="db", drain=drain, kill=kill)


def state(world: World, engine: Engine) -> object:
    """Return all that a refused request must leave as it was."""
    groups = {name: group.limits for name, group in world.groups.made.items()}
    wanted = dict(engine.machine.store.zones)
    return groups, wanted, world.groups.minimum, world.groups.there, engine.machine.ledger.touched


def test_create(world: World, engine: Engine) -> None:
    engine.create(spec(nodes="1", users=("jo",)))
    zone = engine.machine.store.zones["db"]
    assert (zone.shares, zone.cpus, zone.origin) == ({1: GIB}, frozenset({2, 3}), Origin.REQUEST)
    assert world.groups.made["db"].limits == Limits(
        max=GIB, min=GIB, swap=0, mems=frozenset({1}), cpus=frozenset({2, 3})
    )
    assert engine.users_of("db") == ("jo",)
    assert engine.users_of("web") == ()


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        (spec("Db"), BadName, "no name for a zone"),
        (spec("../x"), BadName, "no name for a zone"),
        (spec("taken"), NameTaken, "exists already"),
        (spec(nodes="7"), UnknownNode, "does not exist"),
        (spec(size=9 * GIB), BadSize, "8GiB in all"),
        (spec(nodes="0", size=4 * GIB), NoCapacity, "1GiB reserved"),
        (spec(near="zone:ghost"), NoSuchZone, "zones: taken"),
        (spec(near="pci:0000:00:99.0"), BadInput, "no pci"),
        (spec(near="moon:1"), BadInput, "nothing can be near"),
    ],
)
def test_a_refused_create_changes_nothing(
    world: World, engine: Engine, wanted: ZoneSpec, error: type[ZonedError], says: str
) -> None:
    engine.create(spec("taken", nodes="0"))
    before = state(world, engine)
    with pytest.raises(error, match=says) as raised:
        engine.create(wanted)
    assert type(raised.value) is error
    assert raised.value.hint or error is BadSize
    assert state(world, engine) == before


@pytest.mark.parametrize("method", ["prepare", "protect_parent", "create"])
def test_a_create_that_fails_leaves_nothing(world: World, engine: Engine, method: str) -> None:
    before = state(world, engine)
    world.groups.failures.at(method, KernelRefused("no"))
    with pytest.raises(KernelRefused, match="no"):
        engine.create(spec())
    assert state(world, engine) == before
    assert not engine.alerts
    engine.create(spec())
    assert "db" in world.groups.made


def test_a_create_that_fails_half_way_leaves_nothing(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create(spec("web"))
    before = state(world, engine)

    def half(zone: str, _: Limits) -> None:
        world.groups.made[zone] = FakeGroup(Limits())
        raise KernelRefused("half-way")

    monkeypatch.setattr(world.groups, "create", half)
    with pytest.raises(KernelRefused, match="half-way"):
        engine.create(spec())
    assert state(world, engine) == before


def test_the_name_of_a_group_with_members_is_taken(world: World, engine: Engine) -> None:
    world.groups.made["db"] = FakeGroup(Limits())
    world.add_process(7, "/zone/db")
    with pytest.raises(NameTaken, match="/zone/db exists and has 1 members"):
        engine.create(spec())
    world.end_process(7)
    engine.create(spec())
    assert engine.machine.store.zones.keys() == {"db"}


@pytest.mark.parametrize(
    ("near", "node"), [("node:1", 1), ("cpu:3", 1), ("zone:web", 1), ("zone:wide", 0)]
)
def test_near(engine: Engine, near: str, node: int) -> None:
    engine.create(spec("web", nodes="1"))
    engine.create(spec("wide", nodes="0-1"))
    engine.create(spec(near=near))
    assert engine.machine.store.zones["db"].shares == {node: GIB}


@pytest.mark.parametrize("size", [2 * GIB, 512 * MIB])
def test_resize(world: World, engine: Engine, size: int) -> None:
    engine.create(spec(nodes="1", cpus="0"))
    engine.resize("db", size)
    zone = engine.machine.store.zones["db"]
    assert (zone.shares, zone.spec.size, zone.spec.nodes) == ({1: size}, size, "1")
    assert zone.cpus == frozenset({0})
    assert world.groups.made["db"].limits.max == size
    assert world.groups.minimum == size
    assert not world.groups.broken_promises


def test_resize_stays_on_the_nodes(engine: Engine) -> None:
    engine.create(spec(near="node:1"))
    engine.create(spec("big", size=2 * GIB, nodes="1"))
    with pytest.raises(NoCapacity, match="node 1"):
        engine.resize("db", 3 * GIB)
    engine.resize("db", GIB + 4096)
    zone = engine.machine.store.zones["db"]
    assert zone.shares == {1: GIB + 4096}
    assert (zone.spec.near, zone.spec.nodes) == ("node:1", None)


@pytest.mark.parametrize(
    ("size", "error"), [(9 * GIB, BadSize), (4 * GIB, NoCapacity), (512 * MIB, BelowUse)]
)
def test_a_refused_resize_keeps_the_old_size(
    world: World, engine: Engine, size: int, error: type[ZonedError]
) -> None:
    engine.create(spec(nodes="0"))
    world.groups.made["db"].used = world.groups.made["db"].held = 700 * MIB
    before = state(world, engine)
    with pytest.raises(error):
        engine.resize("db", size)
    assert state(world, engine) == before
    assert not engine.alerts


@pytest.mark.parametrize("method", ["protect_parent", "change"])
def test_a_resize_that_fails_keeps_the_old_size(world: World, engine: Engine, method: str) -> None:
    engine.create(spec())
    before = state(world, engine)
    world.groups.failures.at(method, KernelRefused("no"))
    with pytest.raises(KernelRefused):
        engine.resize("db", 2 * GIB)
    assert state(world, engine) == before


def test_resize_of_nobody(engine: Engine) -> None:
    with pytest.raises(NoSuchZone, match="zones: none"):
        engine.resize("db", GIB)


def test_what_the_policy_says_is_not_changed_by_hand(world: World) -> None:
    engine = started(world, Policy(zones=(spec(),)))
    before = state(world, engine)
    with pytest.raises(InPolicy, match="resized"):
        engine.resize("db", 2 * GIB)
    with pytest.raises(InPolicy, match="destroyed"):
        destroy(engine, drain="root")
    assert state(world, engine) == before


def test_destroy_leaves_nothing(world: World, engine: Engine) -> None:
    before = state(world, engine)
    engine.create(spec())
    destroy(engine)
    assert state(world, engine) == before
    with pytest.raises(NoSuchZone):
        destroy(engine)


def test_a_zone_with_members_stays(world: World, engine: Engine) -> None:
    engine.create(spec())
    for pid in range(10, 17):
        world.add_process(pid, "/zone/db")
    before = state(world, engine)
    with pytest.raises(HasMembers, match=r"has 7 members \(pid 10, 11, 12, 13, 14 …\)") as error:
        destroy(engine)
    assert "--drain root" in error.value.hint
    assert state(world, engine) == before


def test_a_member_that_slips_in_keeps_the_zone(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create(spec())
    before = state(world, engine)
    drop = engine.machine.store.drop

    def drop_then_enter(name: str) -> None:
        drop(name)
        world.add_process(7, "/zone/db")

    monkeypatch.setattr(engine.machine.store, "drop", drop_then_enter)
    with pytest.raises(HasMembers):
        destroy(engine)
    assert state(world, engine) == before


def test_a_group_that_cannot_be_removed_keeps_the_zone(world: World, engine: Engine) -> None:
    engine.create(spec())
    before = state(world, engine)
    world.groups.failures.at("remove", KernelRefused("busy"))
    with pytest.raises(KernelRefused, match="busy"):
        destroy(engine)
    assert state(world, engine) == before


def test_kill(world: World, engine: Engine) -> None:
    engine.create(spec())
    world.add_process(7, "/zone/db")
    world.add_process(8, "/other")
    with pytest.raises(UsageError):
        destroy(engine, drain="root", kill=True)
    assert 7 in world.groups.where
    destroy(engine, kill=True)
    assert world.groups.where == {8: "/other"}
    assert not world.groups.made


def test_a_service_inside_keeps_the_zone(world: World, engine: Engine) -> None:
    engine.create(spec())
    world.groups.units["db"] = ("web.service",)
    for drain in (None, "root"):
        with pytest.raises(UnitInZone, match=r"web\.service") as error:
            destroy(engine, drain=drain)
        assert "systemctl stop web.service" in error.value.hint
    assert "db" in world.groups.made
    destroy(engine, kill=True)
    assert not world.groups.made


def test_an_attached_unit_keeps_the_zone(tmp_path: Path) -> None:
    world = make_world(tmp_path, units=FakeUnits({"web.service": "/system/web"}))
    engine = started(world)
    engine.create(spec())
    run_job(engine, JobKind.ATTACH, name="db", unit="web")
    world.groups.units["db"] = ("web.service",)
    with pytest.raises(HasMembers, match=r"web\.service is attached to zone db"):
        destroy(engine)
    assert world.units is not None
    world.units.cgroups["web.service"] = "/zone/db/web.service"
    with pytest.raises(UnitInZone):
        destroy(engine, drain="root")
    del world.units.cgroups["web.service"]
    with pytest.raises(UnitInZone):
        destroy(engine, drain="root")


def test_limits_can_oversubscribe_and_reserves_cannot(engine: Engine) -> None:
    for name in ("a", "b", "c"):
        engine.create(spec(name, size=4 * GIB, nodes="0", backing=Backing.LIMIT))
    engine.create(spec("d", size=3 * GIB, nodes="0"))
    with pytest.raises(NoCapacity):
        engine.create(spec("e", size=GIB, nodes="0"))


def test_hugest_request_of_all(engine: Engine) -> None:
    with pytest.raises(BadSize):
        engine.create(replace(spec(), size=1 << 200))
