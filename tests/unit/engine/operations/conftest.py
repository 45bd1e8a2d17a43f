# SPDX-License-Identifier: Apache-2.0
"""What the tests of operations share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.operations.base_scene import add, make_scene
from tests.unit.engine.operations.stage import Stage
from tests.unit.fakes import World, make_world, started
from zoned.engine.migration import whole
from zoned.idset import format_ids

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.unit.engine.operations.base_scene import Scene
    from zoned.model.zone import Limits


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def stage(world: World, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Return the machine; write down what a job does to it from then on."""
    found = Stage(world=world, engine=started(world))
    groups = world.groups
    change, attach, release, remove = groups.change, groups.attach, groups.release, groups.remove

    def changed(zone: str, limits: Limits) -> None:
        found.steps.append(f"{zone} has {format_ids(limits.mems or ())}")
        found.limits.append(limits)
        change(zone, limits)

    def attached(zone: str, pids: Sequence[int]) -> None:
        found.steps.append(f"{pids[0]} enters {zone}")
        attach(zone, pids)

    def released(pids: Sequence[int], former: str | None) -> None:
        found.steps.append(f"{format_ids(pids)} back to {former}")
        release(pids, former)

    def removed(zone: str) -> None:
        found.steps.append(f"{zone} goes")
        remove(zone)

    def moved(_: object, pid: int, nodes: frozenset[int], *__: object) -> int:
        found.steps.append(f"{pid} moves to {format_ids(nodes)}")
        found.on_move(pid)
        return 0

    for name, step in (
        ("change", changed),
        ("attach", attached),
        ("release", released),
        ("remove", removed),
    ):
        monkeypatch.setattr(groups, name, step)
    monkeypatch.setattr(whole, "move_all_pages", moved)
    return found


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Node 0 has the machine's own memory, and node 2 is for what is plugged in."""
    return make_scene(tmp_path, monkeypatch)


@pytest.fixture
def plugged(scene: Scene) -> Scene:
    """Have four new blocks on node 2, all of them offline."""
    scene.memory.add(2, 16, 17, 18, 19)
    scene.tell_kernel_memory()
    return scene


@pytest.fixture
def movable(plugged: Scene) -> Scene:
    """Have a base zone of movable memory alone on node 2."""
    add(plugged)
    return plugged
