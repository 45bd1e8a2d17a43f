# SPDX-License-Identifier: Apache-2.0
"""Bringing policies in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fakes import GIB, FakeUnits, World, make_world, run_job, started
from zoned.engine.engine import Engine
from zoned.errors import NoCapacity, PolicyError
from zoned.model.alert import AlertCode
from zoned.model.job import JobKind
from zoned.model.policy import Policy, SystemReserve
from zoned.model.zone import Origin, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.model.alert import Alert


def spec(name: str, gib: int = 1, **more: Any) -> ZoneSpec:
    return ZoneSpec(name=name, size=gib * GIB, **more)


def policy(*specs: ZoneSpec, **more: Any) -> Policy:
    sources = {each.name: f"zones.yaml:{line}" for line, each in enumerate(specs, 1)}
    return Policy(zones=specs, sources=sources, **more)


class Files:
    """Policy files that can be changed, or have a mistake."""

    def __init__(self, now: Policy) -> None:
        self.now: Policy | PolicyError = now

    def load(self) -> Policy:
        if isinstance(self.now, PolicyError):
            raise self.now
        return self.now


def engine_of(world: World, files: Files) -> Engine:
    engine = Engine(world.machine(), files.load)
    engine.start()
    return engine


def sizes(world: World) -> dict[str, int]:
    return {name: (group.limits.max or 0) // GIB for name, group in world.groups.made.items()}


def origins(engine: Engine) -> dict[str, Origin]:
    return {zone.name: zone.origin for zone in engine.machine.store.zones.values()}


def about(engine: Engine) -> list[tuple[AlertCode, str]]:
    return [(alert.code, alert.subject) for alert in engine.alerts]


def only(engine: Engine) -> Alert:
    (alert,) = engine.alerts
    return alert


def test_zones_come_change_and_go_with_the_policy(world: World) -> None:
    files = Files(policy(spec("a"), spec("b", 2)))
    engine = engine_of(world, files)
    assert sizes(world) == {"a": 1, "b": 2}
    engine.create(spec("mine"))
    files.now = policy(spec("b", 3), spec("c"))
    engine.reload()
    assert sizes(world) == {"b": 3, "c": 1, "mine": 1}
    assert origins(engine) == {"b": Origin.POLICY, "c": Origin.POLICY, "mine": Origin.REQUEST}
    assert not engine.alerts


def test_a_zone_whose_text_did_not_change_stays_where_it_is(world: World) -> None:
    files = Files(policy(spec("a", 1)))
    engine = engine_of(world, files)
    before = engine.machine.store.zones["a"]
    assert before.shares == {0: GIB}
    files.now = policy(spec("first", 3, nodes="0"), spec("a", 1))
    engine.reload()
    assert started(world, files.now).machine.store.zones["a"] == before


def test_a_zone_near_another_one(world: World) -> None:
    engine = engine_of(world, Files(policy(spec("a", nodes="1"), spec("b", near="zone:a"))))
    assert engine.machine.store.zones["b"].shares == {1: GIB}


def test_what_does_not_fit_is_told_with_its_place(world: World) -> None:
    engine = engine_of(world, Files(policy(spec("a"), spec("huge", 99), spec("b", nodes="5"))))
    assert sizes(world) == {"a": 1}
    assert about(engine) == [(AlertCode.NOT_APPLIED, "b"), (AlertCode.NOT_APPLIED, "huge")]
    assert engine.alerts[1].message.startswith("zones.yaml:2: zone huge asks for 99GiB")


def test_one_grows_into_what_a_later_one_gives_up(world: World) -> None:
    files = Files(policy(spec("a", 1, nodes="0"), spec("b", 2, nodes="0")))
    engine = engine_of(world, files)
    files.now = policy(spec("a", 2, nodes="0"), spec("b", 1, nodes="0"))
    engine.reload()
    assert sizes(world) == {"a": 2, "b": 1}
    assert not engine.alerts
    assert not world.groups.broken_promises


def test_a_name_that_was_taken_by_hand(world: World) -> None:
    files = Files(policy())
    engine = engine_of(world, files)
    engine.create(spec("a"))
    files.now = policy(spec("a", 2))
    engine.reload()
    assert sizes(world) == {"a": 1}
    assert "made by hand" in only(engine).message
    run_job(engine, JobKind.DESTROY, name="a")
    engine.reload()
    assert sizes(world) == {"a": 2}
    assert not engine.alerts


def test_a_mistake_leaves_everything_in_force(world: World) -> None:
    files = Files(policy(spec("a"), reserve=SystemReserve(default=2 * GIB)))
    engine = engine_of(world, files)
    in_force = engine.machine.policy
    files.now = PolicyError(("zones.yaml:1: no", "zones.yaml:2: no"))
    with pytest.raises(PolicyError):
        engine.reload()
    engine.tick()
    assert engine.machine.policy is in_force
    assert sizes(world) == {"a": 1}
    assert about(engine) == [(AlertCode.BAD_POLICY, "policy")]
    files.now = in_force
    engine.reload()
    assert not engine.alerts


def test_a_mistake_at_the_start_keeps_what_was_stored(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    engine_of(world, Files(policy(spec("a"))))
    files = Files(policy())
    files.now = PolicyError(("zones.yaml:1: no",))
    engine = engine_of(world, files)
    assert sizes(world) == {"a": 1}
    assert about(engine) == [(AlertCode.BAD_POLICY, "policy")]
    assert "zones.yaml:1: no" in caplog.text


def test_the_system_reserve_counts(world: World) -> None:
    engine = engine_of(world, Files(policy(reserve=SystemReserve(default=3 * GIB))))
    engine.create(spec("a", nodes="0"))
    files = Files(policy(reserve=SystemReserve(default=4 * GIB)))
    engine = engine_of(world, files)
    assert about(engine) == [(AlertCode.OVERCOMMITTED, "node 0")]
    assert sizes(world) == {"a": 1}


def test_a_zone_with_members_that_the_policy_drops_stays_for_now(world: World) -> None:
    files = Files(policy(spec("a")))
    engine = engine_of(world, files)
    world.add_process(7, "/zone/a")
    files.now = policy()
    engine.reload()
    assert about(engine) == [(AlertCode.LEFTOVER, "a")]
    files.now = policy(spec("a", 2))
    engine.reload()
    assert sizes(world) == {"a": 2}
    assert origins(engine) == {"a": Origin.POLICY}
    assert not engine.alerts


def dropped(world: World, *specs: ZoneSpec, gib: int = 1) -> tuple[Engine, Files]:
    """Return what has a zone `a` with a member, and a policy that only has these zones."""
    files = Files(policy(spec("a", gib, nodes="0")))
    engine = engine_of(world, files)
    world.add_process(7)
    run_job(engine, JobKind.ATTACH, name="a", pid=7)
    files.now = policy(*specs)
    engine.reload()
    return engine, files


def test_what_a_dropped_zone_protects_is_counted_until_its_members_are_gone(world: World) -> None:
    engine, _ = dropped(world, spec("b", 3, nodes="0"), gib=3)
    assert about(engine) == [(AlertCode.NOT_APPLIED, "b"), (AlertCode.LEFTOVER, "a")]
    with pytest.raises(NoCapacity):
        engine.create(spec("mine", 3, nodes="0"))
    assert sizes(world) == {"a": 3}
    world.end_process(7)
    engine.tick()
    assert sizes(world) == {"b": 3}
    assert not engine.alerts
    assert not world.groups.broken_promises


def test_a_dropped_zone_stays_over_a_restart_as_it_was(world: World) -> None:
    before = dropped(world)[0].machine.store.zones["a"]
    engine = started(world)
    assert engine.machine.store.zones["a"] == before
    assert engine.machine.groups.groups()[0].limits.min == GIB
    world.end_process(7)
    assert not origins(started(world))
    assert not world.groups.there


def test_a_dropped_zone_can_be_left_and_destroyed(world: World) -> None:
    engine, _ = dropped(world)
    run_job(engine, JobKind.DETACH, name="a", pid=7)
    assert world.groups.where == {7: "/"}
    engine.tick()
    assert not origins(engine)
    engine, _ = dropped(world)
    run_job(engine, JobKind.DESTROY, name="a", drain="root")
    assert world.groups.where == {7: "/"}
    assert not origins(engine)
    assert not engine.alerts
    engine.create(spec("a"))
    assert origins(engine) == {"a": Origin.REQUEST}


def test_a_reset_puts_the_members_of_a_dropped_zone_back(world: World) -> None:
    engine, _ = dropped(world)
    assert engine.reset() == []
    assert world.groups.where == {7: "/"}
    assert not world.groups.there


def test_no_zone_comes_back_after_a_reset_that_left_a_dropped_one(world: World) -> None:
    engine, _ = dropped(world, spec("b", 3, nodes="0"), spec("c", nodes="1"), gib=3)
    world.groups.units["a"] = ("web.service",)
    assert len(engine.reset()) == 1
    del world.groups.units["a"]
    world.end_process(7)
    engine.tick()
    assert not origins(engine)
    assert not engine.alerts
    engine.reload()
    assert sizes(world) == {"b": 3, "c": 1}


def test_a_reset_tells_of_a_group_that_is_no_zone(world: World) -> None:
    engine, _ = dropped(world)
    engine.machine.store.drop("a")
    assert engine.reset() == ["a: /zone/a has 1 members and is no zone any more"]
    world.end_process(7)
    assert engine.reset() == []


def test_a_dropped_zone_with_an_attached_unit_stays_until_it_is_detached(tmp_path: Path) -> None:
    world = make_world(tmp_path, units=FakeUnits({"web.service": "/system/web"}))
    files = Files(policy(spec("a")))
    engine = engine_of(world, files)
    run_job(engine, JobKind.ATTACH, name="a", unit="web")
    files.now = policy()
    engine.reload()
    assert about(engine) == [(AlertCode.LEFTOVER, "a")]
    run_job(engine, JobKind.DETACH, name="a", unit="web")
    engine.tick()
    assert not origins(engine)
    assert not engine.alerts


def test_a_dropped_zone_in_which_a_unit_was_started_stays(world: World) -> None:
    files = Files(policy(spec("a")))
    engine = engine_of(world, files)
    world.groups.units["a"] = ("web.service",)
    files.now = policy()
    engine.reload()
    assert origins(engine) == {"a": Origin.FORMER_POLICY}
    del world.groups.units["a"]
    files.now = PolicyError(("zones.yaml:1: no",))
    with pytest.raises(PolicyError):
        engine.reload()
    engine.tick()
    assert not origins(engine)
    assert about(engine) == [(AlertCode.BAD_POLICY, "policy")]


def test_a_dropped_zone_that_comes_back_too_large_is_wanted_as_it_is(world: World) -> None:
    engine, files = dropped(world)
    files.now = policy(spec("a", 99))
    engine.reload()
    assert about(engine) == [(AlertCode.NOT_APPLIED, "a")]
    world.end_process(7)
    engine.tick()
    assert origins(engine) == {"a": Origin.POLICY}
    assert sizes(world) == {"a": 1}
