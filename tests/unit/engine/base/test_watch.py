# SPDX-License-Identifier: Apache-2.0
"""Memory that is plugged in while nobody asks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_memory import BLOCK, FakeMemory, whole_writes
from tests.unit.fake_sys import NODES, add_node
from tests.unit.fakes import World, make_world
from zoned.engine.base import watch
from zoned.engine.base.watch import HotplugKeeper, find_races, lent_auto_online
from zoned.errors import KernelRefused, TryLater
from zoned.model.job import JobKind
from zoned.model.policy import OnlineBy, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zoned.engine.machine import Machine

IOMEM = f"00001000-{64 * BLOCK - 1:08x} : System RAM"
PLUGGABLE = (16 * BLOCK, 48 * BLOCK)


@dataclass
class Scene:
    """A machine with blocks 0-3 on node 0, where node 1 can get 16 and more."""

    world: World
    memory: FakeMemory
    jobs: list[Mapping[str, Any]] = field(default_factory=list)
    busy: bool = False

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, online: OnlineBy = OnlineBy.ZONED, **more: Any) -> None:
        """Start the daemon anew with this policy."""
        self.machine: Machine = self.world.machine()
        self.keeper = HotplugKeeper(self.machine, self.start)
        self.adopt(online, **more)

    def adopt(self, online: OnlineBy, **more: Any) -> None:
        self.machine.policy = Policy(online=online, **more)
        self.keeper.claim()

    def start(self, kind: JobKind, parameters: Mapping[str, Any]) -> None:
        assert kind is JobKind.BASE_ADD
        if self.busy:
            raise TryLater("busy")
        self.jobs.append(parameters)

    def look(self) -> list[tuple[str, str]]:
        """Return the jobs that a look starts."""
        self.jobs.clear()
        self.keeper.look()
        return [(job["base"], job["blocks"]) for job in self.jobs]

    def races(self) -> list[str]:
        return [f"{alert.subject}: {alert.message}" for alert in find_races(self.machine)]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    whole_writes(monkeypatch)
    world, memory = make_world(tmp_path), FakeMemory(tmp_path)
    memory.tell(IOMEM, PLUGGABLE)
    memory.add(0, 0, 1, 2, 3, zone="Normal")
    return Scene(world, memory)


def test_setting_of_the_kernel_is_changed_and_put_back(scene: Scene) -> None:
    assert scene.memory.auto_online() == "offline"
    scene.restart()
    assert scene.memory.auto_online() == "offline"
    scene.adopt(OnlineBy.KERNEL)
    assert scene.memory.auto_online() == "online"
    assert scene.machine.ledger.touched.hotplug is None


def test_what_is_given_back_stays_so_until_the_policy_is_read_again(scene: Scene) -> None:
    assert scene.keeper.give_back() == []
    scene.memory.add(1, 16)
    assert scene.look() == []
    assert scene.memory.auto_online() == "online"
    assert scene.machine.ledger.touched.hotplug is None
    scene.adopt(OnlineBy.ZONED)
    assert scene.memory.auto_online() == "offline"


def test_kernel_that_refuses_what_is_given_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KernelRefused("no")

    with monkeypatch.context() as patch:
        patch.setattr(watch, "write_auto_online", refuse)
        assert scene.keeper.give_back() == ["auto_online_blocks: no"]
    assert scene.look() == []
    assert scene.memory.auto_online() == "online"


def test_policy_that_leaves_it_to_the_kernel_touches_nothing(scene: Scene) -> None:
    scene.adopt(OnlineBy.KERNEL)
    scene.memory.add(1, 16, 17)
    assert scene.look() == []
    assert scene.machine.ledger.touched.hotplug is None


def test_new_blocks_get_one_job_for_each_node(scene: Scene) -> None:
    assert scene.look() == []
    add_node(scene.world.folder, 2, {"distance": "", "meminfo": ""})
    scene.memory.add(1, 16, 17)
    scene.memory.add(2, 20)
    assert scene.look() == [("1", "16-17"), ("2", "20")]
    assert scene.look() == []
    scene.memory.add(1, 18)
    scene.restart()
    assert scene.look() == [("1", "18")]


def test_busy_node_is_for_the_next_look(scene: Scene) -> None:
    scene.memory.add(1, 16)
    scene.busy = True
    assert scene.look() == []
    scene.busy = False
    assert scene.look() == [("1", "16")]


def test_blocks_that_were_offline_before_stay_so(tmp_path: Path, scene: Scene) -> None:
    scene.adopt(OnlineBy.KERNEL)
    scene.memory.add(1, 16, 17)
    scene.adopt(OnlineBy.ZONED)
    assert scene.look() == []
    assert not scene.races()


def test_blocks_that_went_and_came_again_are_new(scene: Scene) -> None:
    scene.memory.add(1, 16)
    assert scene.look() == [("1", "16")]
    scene.memory.remove(16)
    assert scene.look() == []
    scene.memory.add(1, 16)
    assert scene.look() == [("1", "16")]


def test_block_whose_node_comes_late(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.memory.add(None, 16)
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        (scene.world.folder / NODES / "node1/memory16").symlink_to("../../memory/memory16")

    monkeypatch.setattr(time, "sleep", nap)
    assert scene.look() == [("1", "16")]
    assert len(naps) == 1


def test_block_whose_node_never_comes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_PATIENCE", 0.05)
    scene.memory.add(None, 16)
    assert scene.look() == []


def test_kernel_that_was_first(scene: Scene) -> None:
    (scene.world.folder / "sys/devices/system/memory/auto_online_blocks").write_text("online\n")
    scene.memory.add(1, 16, 17, 18, 19, zone="Normal")
    assert scene.look() == []
    assert scene.memory.auto_online() == "offline"
    (told,) = scene.races()
    assert told.startswith("node 1: memory blocks 17-19 were brought online")
    assert "by the kernel itself (auto_online_blocks said online)" in told
    scene.restart()
    assert scene.races() == [told]
    scene.memory.remove(17, 18, 19)
    scene.look()
    assert not scene.races()


def test_somebody_else_who_was_first(scene: Scene) -> None:
    scene.look()
    scene.memory.add(1, 16, 17, zone="Normal")
    scene.look()
    (told,) = scene.races()
    assert "memory blocks 17 were" in told
    assert "by a udev rule or another program" in told


def test_memory_that_came_before_the_policy(scene: Scene) -> None:
    scene.adopt(OnlineBy.KERNEL)
    scene.memory.add(1, 16, 17, zone="Normal")
    assert not scene.races()
    scene.adopt(OnlineBy.ZONED)
    scene.look()
    (told,) = scene.races()
    assert "auto_online_blocks said online" in told


def test_movable_memory_of_others_is_no_race(scene: Scene) -> None:
    scene.memory.add(1, 16, zone="Normal")
    scene.memory.add(1, 17, 18, zone="Movable")
    scene.look()
    assert not scene.races()


def test_memory_of_the_kernel_where_none_was_to_be(scene: Scene) -> None:
    scene.machine.ledger.movable_only_is(frozenset({1}))
    scene.memory.add(1, 16, zone="Movable")
    scene.look()
    assert not scene.races()
    scene.memory.add(1, 17, zone="Normal")
    scene.look()
    (told,) = scene.races()
    assert told.startswith("node 1: memory blocks 17 were brought online")
    scene.restart()
    assert scene.races() == [told]


def test_policy_that_wants_movable_memory_alone(scene: Scene) -> None:
    scene.adopt(OnlineBy.ZONED, movable_only=True)
    scene.memory.add(1, 16, zone="Normal")
    scene.look()
    (told,) = scene.races()
    assert "memory blocks 16 were" in told
    scene.memory.add(0, 4, zone="Normal")
    scene.look()
    assert scene.races() == [told]


def test_part_of_the_kernel_from_before_that_policy_is_nobodys_fault(scene: Scene) -> None:
    scene.adopt(OnlineBy.KERNEL)
    scene.memory.add(1, 16, zone="Normal")
    scene.memory.add(1, 17, 18, zone="Movable")
    scene.adopt(OnlineBy.ZONED, movable_only=True)
    scene.look()
    assert not scene.races()


def test_machine_without_hotplug(scene: Scene) -> None:
    scene.adopt(OnlineBy.KERNEL)
    (scene.world.folder / "sys/devices/system/memory/auto_online_blocks").unlink()
    scene.adopt(OnlineBy.ZONED)
    assert scene.look() == []
    assert scene.machine.ledger.touched.hotplug is None


def test_kernel_that_refuses_is_told_in_the_log(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise KernelRefused("no")

    monkeypatch.setattr(watch, "write_auto_online", refuse)
    scene.adopt(OnlineBy.KERNEL)
    assert "memory that is plugged in: [kernel-refused] no" in caplog.text
    monkeypatch.setattr(watch, "read_blocks", refuse)
    scene.machine.policy = replace(scene.machine.policy, online=OnlineBy.ZONED)
    caplog.clear()
    scene.keeper.look()
    assert "[kernel-refused]" in caplog.text


@pytest.mark.parametrize("online", OnlineBy)
def test_lent_for_a_while(scene: Scene, online: OnlineBy) -> None:
    scene.restart(online)
    before = scene.memory.auto_online()
    with lent_auto_online(scene.machine):
        assert scene.memory.auto_online() == "offline"
    assert scene.memory.auto_online() == before


def test_killed_while_it_was_lent(scene: Scene) -> None:
    scene.adopt(OnlineBy.KERNEL)
    lent = lent_auto_online(scene.machine)
    lent.__enter__()
    scene.restart(OnlineBy.KERNEL)
    assert scene.memory.auto_online() == "online"
