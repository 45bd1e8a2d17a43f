# SPDX-License-Identifier: Apache-2.0
"""Base zones that come: blocks of a node online, and regions of a dax bus that become memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.operations.base_scene import ADD, kinds
from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import started
from zoned.engine.base.watch import find_races
from zoned.errors import (
    BadSize,
    BlockBusy,
    BlockRefused,
    KernelRefused,
    NoSuchDax,
    NotAsWritten,
    Partial,
    UnknownNode,
    Unsupported,
    UsageError,
)
from zoned.model.base import DaxMode
from zoned.model.block import PARKED, HeldBlock
from zoned.model.policy import OnlineBy

if TYPE_CHECKING:
    from tests.unit.engine.operations.base_scene import Scene
    from zoned.errors import ZonedError
    from zoned.model.job import JobRequest


def test_first_block_is_the_kernels(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, 18, 19)
    request = scene.run(ADD, "2")
    assert request.zones == ("node:2",)
    assert scene.memory.done == [
        "16 online_kernel",
        "17 online_movable",
        "18 online_movable",
        "19 online_movable",
    ]
    assert scene.control.progress.total == scene.control.progress.done == 4 * BLOCK
    assert "1 blocks that the kernel can use for itself, 3 movable ones" in scene.notes()


def test_only_the_blocks_that_are_named(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, 18, 19)
    scene.run(ADD, "2", blocks="17-18")
    assert scene.memory.done == ["17 online_kernel", "18 online_movable"]


def test_parked_blocks_stay(scene: Scene) -> None:
    scene.memory.add(2, 16, 17)
    parked = HeldBlock(number=16, owner=PARKED, former="Movable")
    scene.engine.machine.ledger.blocks_taken([parked])
    scene.run(ADD, "2")
    assert scene.memory.done == ["17 online_kernel"]


def test_memory_that_somebody_else_brought_online_is_mended(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, 18, zone="Normal")
    ledger = scene.engine.machine.ledger
    held = []
    scene.memory.on_switch = lambda number: held.append((number, number in ledger.touched.blocks))
    scene.run(ADD, "2")
    assert scene.memory.kinds() == {0: "Normal", 1: "Normal", 16: "Normal"} | {
        17: "Movable",
        18: "Movable",
    }
    assert held == [(18, True), (18, True), (17, True), (17, True)]
    assert not scene.held()


def be_first(scene: Scene, number: int, zone: str, error: ZonedError | None = None) -> None:
    """Have somebody else bring a block online once zoned is about to: before it looks at it, or
    between that and its writing, which is an error then.
    """

    def bring_online(asked: int) -> None:
        if asked == number:
            scene.memory.on_switch = lambda _: None
            scene.memory.remove(number)
            scene.memory.add(2, number, zone=zone)
            if error is not None:
                raise error

    scene.memory.on_switch = bring_online


def watch_new_memory(scene: Scene) -> None:
    """Start the daemon anew, to bring new memory online itself."""
    policy = replace(scene.engine.machine.policy, online=OnlineBy.ZONED)
    scene.engine = started(scene.world, policy)


def add_all_but_18(scene: Scene) -> None:
    """Have node 2 added, of whose three blocks the last one does not become movable."""
    with pytest.raises(Partial, match="memory blocks 18 of node 2 stay"):
        scene.run(ADD, "2")
    assert kinds(scene) == "KMK"
    assert not scene.held()


@pytest.mark.parametrize("error", [None, BlockRefused("EINVAL"), NotAsWritten("other word")])
def test_somebody_else_is_first_with_a_block(scene: Scene, error: ZonedError | None) -> None:
    watch_new_memory(scene)
    scene.memory.add(2, 16, 17, 18, 19)
    be_first(scene, 17, "Normal", error)
    scene.run(ADD, "2")
    assert kinds(scene) == "KMMM"
    assert scene.memory.done[-2:] == ["17 offline", "17 online_movable"]
    assert "block 17 was brought online by somebody else meanwhile, as Normal" in scene.notes()
    assert scene.control.progress.total == scene.control.progress.done == 3 * BLOCK
    assert not list(find_races(scene.engine.machine))


@pytest.mark.parametrize("ours", [True, False])
def test_block_that_stays_as_somebody_else_brought_it(scene: Scene, *, ours: bool) -> None:
    if ours:
        watch_new_memory(scene)
    scene.memory.add(2, 16, 17, 18, 19)
    be_first(scene, 17, "Normal")
    scene.memory.busy[17] = [BlockBusy("17 has slab")]
    with pytest.raises(Partial, match="memory blocks 17 of node 2 stay"):
        scene.run(ADD, "2")
    assert kinds(scene) == "KKMM"
    told = [alert.message for alert in find_races(scene.engine.machine)]
    assert len(told) == ours
    assert all("blocks 17 were" in each and "a udev rule or another" in each for each in told)


def test_block_of_the_kernel_that_somebody_else_made_movable(scene: Scene) -> None:
    watch_new_memory(scene)
    scene.memory.add(2, 16, 17, 18, 19)
    be_first(scene, 16, "Movable")
    scene.run(ADD, "2")
    assert kinds(scene) == "MKMM"
    touched = scene.engine.machine.ledger.touched.hotplug
    assert touched is not None
    assert not touched.raced


def test_block_that_the_kernel_refuses_to_bring_online(scene: Scene) -> None:
    scene.memory.add(2, 16, 17)
    scene.memory.busy[17] = [BlockRefused("no")]
    with pytest.raises(BlockRefused, match="no"):
        scene.run(ADD, "2")
    assert kinds(scene) == "K-"


def test_what_cannot_be_mended_is_told(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, 18, zone="Normal")
    scene.memory.busy[18] = [BlockBusy("18 has slab")]
    with pytest.raises(Partial, match="memory blocks 18 of node 2 stay"):
        scene.run(ADD, "2")
    assert scene.memory.kinds()[17] == "Movable"
    assert scene.memory.kinds()[18] == "Normal"
    assert "18 has slab" in scene.notes()
    assert not scene.held()


@pytest.mark.parametrize("error", [None, BlockRefused("EINVAL"), NotAsWritten("other word")])
def test_somebody_else_brings_a_block_online_that_is_to_be_movable(
    scene: Scene, error: ZonedError | None
) -> None:
    """Between zoned's taking it offline and its bringing it back."""
    watch_new_memory(scene)
    scene.memory.add(2, 16, 17, 18, zone="Normal")

    def taken(number: int) -> None:
        if f"{number} offline" not in scene.memory.done:
            return
        be_first(scene, number, "Normal", error)
        scene.memory.on_switch(number)

    scene.memory.on_switch = taken
    add_all_but_18(scene)
    assert "block 18 was brought online by somebody else meanwhile, as Normal" in scene.notes()
    assert [alert.subject for alert in find_races(scene.engine.machine)] == ["node 2"]


def test_block_that_does_not_become_movable_comes_back_as_it_was(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, 18, zone="Normal")

    def taken(number: int) -> None:
        if scene.memory.done == ["18 offline"]:
            scene.memory.on_switch = lambda _: None
            scene.memory.busy[18] = [BlockRefused("18 holds on")]

    scene.memory.on_switch = taken
    add_all_but_18(scene)
    assert "18 holds on" in scene.notes()


def test_region_becomes_memory(scene: Scene) -> None:
    scene.run(ADD, "dax0.0")
    assert scene.mode is DaxMode.SYSTEM_RAM
    assert scene.memory.auto_online() == "online"
    kinds = {number: kind for number, kind in scene.memory.kinds().items() if number >= 64}
    assert kinds == {64: "Normal", 65: "Movable", 66: "Movable", 67: "Movable"}
    # What a restart cut off after that goes on from there.
    scene.memory.done.clear()
    scene.run(ADD, "dax0.0")
    assert scene.memory.done == []


def test_region_that_the_kernel_does_not_take(scene: Scene) -> None:
    scene.refuse = KernelRefused("no")
    with pytest.raises(KernelRefused):
        scene.run(ADD, "dax0.0")
    assert scene.memory.auto_online() == "online"
    assert scene.engine.machine.ledger.touched.hotplug is None


@pytest.mark.parametrize(
    ("base", "error"),
    [
        ("7", UnknownNode),
        ("2", UnknownNode),
        ("dax9.0", NoSuchDax),
        ("dax1.0", BadSize),
        ("dax2.0", UnknownNode),
        ("", UsageError),
        ("-1", UsageError),
        ("all", UsageError),
    ],
)
def test_what_cannot_be_added(scene: Scene, base: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        scene.engine.prepare(ADD, {"base": base})


def test_machine_without_memory_hotplug(scene: Scene) -> None:
    (scene.world.folder / "sys/devices/system/memory/block_size_bytes").unlink()
    with pytest.raises(Unsupported):
        scene.engine.prepare(ADD, {"base": "2"})


def test_new_memory_is_brought_online_by_a_job_of_the_daemon(scene: Scene) -> None:
    started_jobs = []

    class Jobs:
        active = ()

        def refuse_busy(self, name: str) -> None:
            pass

        def start(self, request: JobRequest, uid: int, body: object) -> None:
            started_jobs.append(request.parameters)

    scene.engine.machine.policy = replace(scene.engine.machine.policy, online=OnlineBy.ZONED)
    scene.engine.jobs = Jobs()  # type: ignore[assignment]
    scene.engine.tick()
    scene.memory.add(2, 16, 17)
    scene.engine.tick()
    assert started_jobs == [{"base": "2", "blocks": "16-17"}]


def test_reset_leaves_new_memory_to_the_kernel_again(scene: Scene) -> None:
    watch_new_memory(scene)
    assert scene.memory.auto_online() == "offline"
    assert scene.engine.reset() == []
    scene.engine.tick()
    assert scene.memory.auto_online() == "online"
    assert scene.engine.machine.ledger.touched.hotplug is None
    scene.engine.reload()
    assert scene.memory.auto_online() == "offline"
