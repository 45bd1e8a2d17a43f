# SPDX-License-Identifier: Apache-2.0
"""The loop body: what is wanted comes about, and what does not becomes an alert."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from tests.unit.fakes import GIB, MIB, FakeGroup, World, make_world, set_node
from zoned.engine.reconcile import Reconciler
from zoned.errors import BelowUse, KernelRefused, NotAsWritten
from zoned.model.alert import AlertCode
from zoned.model.zone import Limits, Zone, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.machine import Machine


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def zone(name: str = "db", gib: int = 1) -> Zone:
    spec = ZoneSpec(name=name, size=gib * GIB)
    return Zone(spec=spec, shares={0: gib * GIB}, cpus=frozenset({0, 1}))


def start(world: World, *zones: Zone) -> tuple[Machine, Reconciler]:
    machine = world.machine()
    for each in zones:
        machine.store.put(each)
    reconciler = Reconciler(machine)
    reconciler.run()
    return machine, reconciler


def codes(reconciler: Reconciler) -> list[tuple[AlertCode, str]]:
    return [(alert.code, alert.subject) for alert in reconciler.alerts]


def test_what_is_wanted_comes_about(world: World) -> None:
    machine, reconciler = start(world, zone("a"), zone("b", 2))
    assert not reconciler.alerts
    assert world.groups.made.keys() == {"a", "b"}
    assert world.groups.minimum == 3 * GIB
    assert machine.ledger.touched.groups == {"a", "b"}
    assert machine.ledger.touched.parent
    world.groups.failures.calls.clear()
    reconciler.run()
    assert world.groups.failures.calls == ["groups"]


def test_what_is_not_wanted_goes_with_all_traces(world: World) -> None:
    machine, reconciler = start(world, zone())
    machine.store.drop("db")
    reconciler.run()
    assert not world.groups.made
    assert not world.groups.there
    touched = machine.ledger.touched
    assert (touched.groups, touched.parent) == (frozenset(), False)


def test_one_zone_that_fails_does_not_stop_the_others(world: World) -> None:
    world.groups.failures.at("create", KernelRefused("mkdir: no"))
    _, reconciler = start(world, zone("a"), zone("b"))
    assert world.groups.made.keys() == {"b"}
    (alert,) = reconciler.alerts
    assert (alert.code, alert.subject, alert.message) == (
        AlertCode.NOT_APPLIED,
        "a",
        "mkdir: no",
    )
    reconciler.run()
    assert not reconciler.alerts
    assert world.groups.made.keys() == {"a", "b"}


def test_without_a_parent_nothing_else_is_tried(world: World) -> None:
    world.groups.failures.at("prepare", KernelRefused("no controller"))
    _, reconciler = start(world, zone())
    assert "create db" not in world.groups.failures.calls
    assert (AlertCode.NOT_APPLIED, "all zones") in codes(reconciler)
    reconciler.run()
    assert not reconciler.alerts


def test_converge_raises_what_concerns_the_zone_or_all(world: World) -> None:
    machine, reconciler = start(world)
    machine.store.put(zone("a"))
    machine.store.put(zone("b"))
    world.groups.failures.at("create", KernelRefused("a: no"))
    reconciler.converge("b")
    world.groups.failures.at("create", KernelRefused("a: no"))
    with pytest.raises(KernelRefused, match="a: no"):
        reconciler.converge("a")
    world.groups.there = False
    world.groups.made.clear()
    world.groups.failures.at("prepare", KernelRefused("parent: no"))
    with pytest.raises(KernelRefused, match="parent: no"):
        reconciler.converge("b")


def test_what_the_kernel_does_not_show_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, reconciler = start(world)
    machine.store.put(zone())
    monkeypatch.setattr(world.groups, "create", lambda *_: None)
    with pytest.raises(NotAsWritten, match="make zone db"):
        reconciler.converge("db")
    assert (AlertCode.LIMITS_DIFFER, "db") in codes(reconciler)


def test_foreign_writes_are_put_right(world: World) -> None:
    _, reconciler = start(world, zone())
    group = world.groups.made["db"]
    group.limits = replace(group.limits, max=5, mems=frozenset({1}))
    reconciler.run()
    assert world.groups.made["db"].limits.max == GIB
    assert world.groups.made["db"].limits.mems == frozenset({0})


def shrink(world: World) -> tuple[Machine, Reconciler]:
    """A zone of 2 GiB that uses 1.5 GiB for good and is wanted to have 1 GiB, beside another."""
    machine, reconciler = start(world, zone("db", 2), zone("web", 1))
    world.groups.made["db"].used = world.groups.made["db"].held = 1536 * MIB
    machine.store.put(zone("db", 1))
    reconciler.run()
    return machine, reconciler


def test_a_limit_below_use_is_not_tried_again_and_again(world: World) -> None:
    _, reconciler = shrink(world)
    assert codes(reconciler) == [(AlertCode.NOT_APPLIED, "db")]
    assert world.groups.made["db"].limits.max == 2 * GIB
    world.groups.failures.calls.clear()
    reconciler.run()
    reconciler.run()
    assert not [call for call in world.groups.failures.calls if not call.startswith("groups")]
    assert codes(reconciler) == [(AlertCode.NOT_APPLIED, "db")]


def test_protection_stays_enough_while_a_zone_cannot_shrink(world: World) -> None:
    _, reconciler = shrink(world)
    assert world.groups.minimum == 3 * GIB
    world.groups.made["db"].held = 0
    reconciler.forget("db")
    reconciler.run()
    assert world.groups.minimum == 2 * GIB
    assert not reconciler.alerts
    assert not world.groups.broken_promises


def test_it_is_tried_again_once_the_use_went_down(world: World) -> None:
    _, reconciler = shrink(world)
    world.groups.made["db"].used = 900 * MIB
    reconciler.run()
    assert world.groups.made["db"].limits.max == GIB
    assert not reconciler.alerts
    assert world.groups.minimum == 2 * GIB


def test_another_limit_is_tried_at_once(world: World) -> None:
    machine, reconciler = shrink(world)
    machine.store.put(replace(zone("db", 1), cpus=frozenset({3})))
    world.groups.failures.calls.clear()
    reconciler.run()
    assert any(call.startswith("reclaim db") for call in world.groups.failures.calls)
    assert isinstance(reconciler._failures["db"].error, BelowUse)


def test_a_zone_that_is_gone_takes_its_failure_along(world: World) -> None:
    machine, reconciler = shrink(world)
    machine.store.drop("db")
    reconciler.run()
    assert not reconciler.alerts
    assert world.groups.made.keys() == {"web"}
    assert world.groups.minimum == GIB


def test_the_parent_outlives_a_group_that_cannot_be_removed(world: World) -> None:
    machine, reconciler = start(world, zone())
    machine.store.drop("db")
    world.groups.failures.at("remove", KernelRefused("rmdir: busy"))
    reconciler.run()
    before = machine.ledger.touched
    assert before.parent
    assert codes(reconciler) == [(AlertCode.NOT_APPLIED, "db")]
    reconciler.run()
    assert not world.groups.there
    assert not machine.ledger.touched.parent
    assert not reconciler.alerts


def test_a_leftover_with_members_stays_until_they_are_gone(world: World) -> None:
    machine, reconciler = start(world, zone())
    world.add_process(7, "/zone/db")
    machine.store.drop("db")
    reconciler.run()
    assert codes(reconciler) == [(AlertCode.LEFTOVER, "db")]
    assert world.groups.minimum == GIB
    world.end_process(7)
    reconciler.run()
    assert not reconciler.alerts
    assert not world.groups.there


def test_groups_of_others_are_only_told_of(world: World) -> None:
    world.groups.made["other"] = FakeGroup(Limits())
    _, reconciler = start(world)
    assert codes(reconciler) == [(AlertCode.UNKNOWN_GROUP, "other")]
    assert "other" in world.groups.made


def test_the_ledger_forgets_groups_that_never_were(world: World) -> None:
    machine, reconciler = start(world)
    machine.ledger.group_made("ghost")
    reconciler.run()
    assert not machine.ledger.touched.groups


def test_a_node_that_shrank_is_told_of(world: World) -> None:
    _, reconciler = start(world, zone("db", 3))
    set_node(world.folder, 0, 2 * GIB, {0: 1, 1: 1})
    reconciler.run()
    assert codes(reconciler) == [(AlertCode.OVERCOMMITTED, "node 0")]


def test_a_daemon_that_may_not_use_all_nodes_says_so(world: World) -> None:
    write(world.folder, {"proc/self/status": "Name:\tzoned\nMems_allowed_list:\t1"})
    _, reconciler = start(world)
    assert codes(reconciler) == [(AlertCode.SELF_CONFINED, "zoned")]
    write(world.folder, {"proc/self/status": "Mems_allowed_list:\t0-7"})
    reconciler.run()
    assert not reconciler.alerts


def test_problems_of_the_policy(world: World) -> None:
    _, reconciler = start(world)
    reconciler.problems = {"": "a.yaml: line 1", "db": "no room"}
    reconciler.run()
    assert codes(reconciler) == [
        (AlertCode.BAD_POLICY, "policy"),
        (AlertCode.NOT_APPLIED, "db"),
    ]


def test_kills_are_logged_once_and_not_those_of_before(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    _, reconciler = start(world, zone())
    world.groups.made["db"].oom_kill = 2
    caplog.set_level(logging.WARNING)
    reconciler.run()
    reconciler.run()
    assert len([each for each in caplog.messages if "killed 2" in each]) == 1
    caplog.clear()
    Reconciler(world.machine()).run()
    assert not caplog.messages


def test_an_alert_is_logged_when_it_comes(world: World, caplog: pytest.LogCaptureFixture) -> None:
    _, reconciler = start(world)
    reconciler.problems = {"db": "no room"}
    reconciler.run()
    reconciler.run()
    assert [each for each in caplog.messages if "no room" in each] == ["[not-applied] db: no room"]
