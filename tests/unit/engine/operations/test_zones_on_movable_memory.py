# SPDX-License-Identifier: Apache-2.0
"""Zones on base zones of movable memory alone: never on these alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.operations.base_scene import ADD, REMOVE, Scene, kinds
from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import GIB, run_job
from zoned.engine.policy_sync import adopt_policy
from zoned.errors import MovableOnly
from zoned.model.job import JobKind
from zoned.model.policy import Policy
from zoned.model.zone import Backing, ZoneSpec

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("backing", Backing)
def test_zone_on_it_alone_is_refused(movable: Scene, backing: Backing) -> None:
    spec = ZoneSpec(name="db", size=BLOCK, nodes="2", backing=backing)
    with pytest.raises(MovableOnly, match="node 2 has only movable memory") as caught:
        movable.engine.prepare(JobKind.CREATE, {"spec": spec})
    assert caught.value.code == "movable-only"
    assert caught.value.hint.endswith("that has memory the kernel can use, e.g. --nodes 0,2")


def change_policy(scene: Scene) -> None:
    spec = ZoneSpec(name="late", size=BLOCK, nodes="2")
    problems = adopt_policy(scene.engine.machine, Policy(zones=(spec,)))
    if problems:
        raise MovableOnly(problems["late"])


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: scene.engine.prepare(JobKind.MOVE, {"name": "db", "nodes": "2"}),
        lambda scene: scene.engine.create(ZoneSpec(name="late", size=BLOCK, near="node:2")),
        change_policy,
    ],
)
def test_no_zone_comes_to_be_on_it_alone(movable: Scene, change: Callable[[Scene], object]) -> None:
    movable.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="0"))
    with pytest.raises(MovableOnly):
        change(movable)
    assert "late" not in movable.engine.machine.store.zones


def test_zone_with_another_node_has_shares_and_limits_on_both(movable: Scene) -> None:
    engine = movable.engine
    engine.create(ZoneSpec(name="db", size=4 * BLOCK, nodes="0,2"))
    zone = engine.machine.store.zones["db"]
    assert zone.shares == {0: 2 * BLOCK, 2: 2 * BLOCK}
    limits = movable.world.groups.made["db"].limits
    assert (limits.max, limits.min) == (4 * BLOCK, 4 * BLOCK)
    assert limits.mems == frozenset({0, 2})
    assert not engine.alerts
    engine.resize("db", 6 * BLOCK)
    assert engine.machine.store.zones["db"].shares == {0: 3 * BLOCK, 2: 3 * BLOCK}
    run_job(engine, JobKind.MOVE, name="db", nodes="0")
    movable.run(REMOVE, "2")
    assert kinds(movable) == "----"


def test_zone_whose_other_node_is_gone_is_told_of(movable: Scene) -> None:
    engine = movable.engine
    engine.create(ZoneSpec(name="db", size=GIB // 4, nodes="0,2"))
    zone = engine.machine.store.zones["db"]
    engine.machine.store.put(replace(zone, shares={2: GIB // 4}))
    engine.tick()
    assert [str(alert.code) for alert in engine.alerts] == ["no-kernel-memory"]
    with pytest.raises(MovableOnly):
        engine.resize("db", BLOCK)
    # Its node is for movable memory alone all the same: nobody puts the kernel's there.
    movable.memory.add(2, 20)
    movable.run(ADD, "2", blocks="20")
    assert kinds(movable) == "MMMMM"
