# SPDX-License-Identifier: Apache-2.0
"""Blocks held offline for a device, given to the kernel when it comes, and given back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.scene import DEVICE, Killed, Scene, make_scene
from tests.unit.fake_memory import BLOCK
from tests.unit.fake_sys import MEMORY, write
from zoned.engine.blocks import strays
from zoned.engine.blocks.keeper import BlockKeeper
from zoned.engine.dma.blocks import Blocks
from zoned.engine.jobs.control import Cancelled
from zoned.errors import BlockBusy, NotAsWritten, TooFewBlocks
from zoned.model.block import RETURNING
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung
from zoned.model.job import JobKind
from zoned.model.policy import SystemReserve

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = Blocks()
MINE = "dma:scsi"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return make_scene(tmp_path, monkeypatch)


def waiting(scene: Scene, mib: int = 256, bits: int = 29) -> None:
    scene.reserve(HOLDER, Rung.BLOCKS, mib, bits)


def test_blocks_wait_offline_and_come_with_the_device(scene: Scene) -> None:
    waiting(scene)
    held = scene.on_record
    assert held.blocks == (2, 3)
    assert held.spans == (Span(2 * BLOCK, 2 * BLOCK),)
    assert HOLDER.faults(scene.machine, held) == []
    below = {2: "-", 3: "-"}
    above = dict.fromkeys((4, 5, 6), "Movable")
    assert {number: scene.kinds[number] for number in range(8) if number in scene.kinds} == (
        below | above
    )
    assert set(scene.owned.values()) == {MINE}

    held = scene.again(HOLDER, DEVICE)
    assert 2 not in scene.kinds
    assert 3 not in scene.kinds
    assert scene.owned[2] == MINE, "given to the kernel, they are nobody else's yet"
    assert HOLDER.faults(scene.machine, held) == []
    scene.release(HOLDER)
    assert (scene.kinds, scene.owned) == ({}, {})


@pytest.fixture
def moved(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[dict[int, str]]:
    """How the blocks were whenever pages were put back that the kernel had pushed off node 0."""
    seen: list[dict[int, str]] = []

    def move(_: object, pid: int, nodes: frozenset[int]) -> int:
        assert (pid, nodes) == (70, frozenset({0}))
        seen.append(scene.kinds)
        return 0

    scene.world.add_process(70, mems="0")
    monkeypatch.setattr(strays, "move_all_pages", move)
    return seen


def test_pages_are_put_back_once_its_blocks_are_back(
    scene: Scene, moved: list[dict[int, str]]
) -> None:
    waiting(scene)
    moved.clear()
    scene.release(HOLDER)
    assert moved == [{}]


def test_pages_are_put_back_once_its_blocks_wait_again(
    scene: Scene, moved: list[dict[int, str]]
) -> None:
    waiting(scene)
    scene.again(HOLDER, DEVICE)
    moved.clear()
    scene.again(HOLDER)
    assert {number: moved[0].get(number) for number in (2, 3)} == {2: "-", 3: "-"}


def test_blocks_above_the_limit_become_movable_as_far_as_they_can(scene: Scene) -> None:
    scene.memory.busy[5] = [BlockBusy("block 5 holds on")]
    waiting(scene)
    # Of each zone the edges stay, and of node 1 a part for the kernel.
    assert scene.on_record.above == (4, 6, *range(9, 15))
    assert "memory blocks 5,7-8,15 between the limit and 4GiB stay" in scene.notes


def test_a_limit_of_four_gib_leaves_nothing_above(scene: Scene) -> None:
    waiting(scene, bits=32)
    assert scene.on_record.above == ()
    assert "between the limit" not in scene.notes


def test_a_device_that_is_there_already(scene: Scene) -> None:
    held = scene.reserve(HOLDER, Rung.BLOCKS, 128, 29, DEVICE)
    assert held.blocks == (3,)
    assert scene.memory.done[:1] == ["3 offline"]
    assert "3 online_kernel" in scene.memory.done
    assert set(scene.kinds.values()) == {"Movable"}
    assert HOLDER.faults(scene.machine, held) == []


def test_the_device_leaves_and_its_blocks_wait_again(scene: Scene) -> None:
    waiting(scene)
    scene.again(HOLDER, DEVICE)
    scene.memory.busy[3] = [BlockBusy("block 3 holds on")] * 2
    held = scene.again(HOLDER)
    assert held.blocks == (1, 2)
    assert {number: scene.kinds.get(number) for number in (1, 2, 3)} == {1: "-", 2: "-", 3: None}
    assert 3 not in scene.owned
    assert "block 3 holds on; it stays with the kernel" in scene.notes
    assert HOLDER.faults(scene.machine, held) == []
    scene.release(HOLDER)
    assert (scene.kinds, scene.owned) == ({}, {})


def test_what_the_kernel_keeps_is_told_where_there_is_no_other(scene: Scene) -> None:
    waiting(scene, mib=384)
    scene.again(HOLDER, DEVICE)
    for number in (1, 2, 3):
        scene.memory.busy[number] = [BlockBusy("no")] * 5
    with pytest.raises(TooFewBlocks, match="0 of 3"):
        scene.again(HOLDER)
    assert scene.on_record.standing, "what stands is not given up by a repair that fails"


def test_too_few_blocks_are_all_given_back(scene: Scene) -> None:
    with pytest.raises(TooFewBlocks, match="3 of 4 memory blocks that the device reaches"):
        waiting(scene, mib=512)
    assert (scene.kinds, scene.owned) == ({}, {})
    assert scene.memory.done, "none was tried"


def test_blocks_of_several_nodes(scene: Scene) -> None:
    waiting(scene, mib=8 * 128, bits=31)
    assert scene.on_record.blocks == (5, 6, *range(9, 15))
    assert scene.on_record.spans == (Span(5 * BLOCK, 2 * BLOCK), Span(9 * BLOCK, 6 * BLOCK))


def test_the_node_of_the_device_comes_first(scene: Scene) -> None:
    scene.reserve(HOLDER, Rung.BLOCKS, 128, 31, node=1)
    assert scene.on_record.blocks == (14,)


def test_what_is_kept_for_the_system_stays(scene: Scene) -> None:
    reserve = SystemReserve(default=7 * BLOCK)
    scene.machine.policy = replace(scene.machine.policy, reserve=reserve)
    waiting(scene, bits=31)
    assert scene.on_record.blocks == (6, 14)
    scene.release(HOLDER)
    with pytest.raises(TooFewBlocks, match="2 of 3"):
        waiting(scene, mib=384, bits=31)


def test_a_block_that_comes_back_elsewhere_is_no_success(scene: Scene) -> None:
    scene.memory.on_switch = lambda _: scene.memory.kernel.update({3: "Normal"})
    with pytest.raises(TooFewBlocks):
        waiting(scene, mib=384)
    assert "memory block 3 was DMA32 and could only come back as Normal or Movable" in scene.notes


def test_a_block_that_the_kernel_brings_back_elsewhere(scene: Scene) -> None:
    waiting(scene)
    scene.memory.kernel[3] = "Normal"
    with pytest.raises(NotAsWritten, match="memory block 3 was DMA32 and came back as Normal"):
        scene.again(HOLDER, DEVICE)


def test_faults_are_found_by_looking(scene: Scene) -> None:
    waiting(scene)
    held, machine = scene.on_record, scene.machine
    write(scene.world.folder, {f"{MEMORY}/memory3/state": "online"})
    assert HOLDER.faults(machine, held) == ["memory block 3 is online, and should be offline"]
    write(scene.world.folder, {f"{MEMORY}/memory3/state": "offline"})
    write(scene.world.folder, {f"{MEMORY}/memory4/valid_zones": "DMA32"})
    assert HOLDER.faults(machine, held) == [
        "memory block 4 above the limit is DMA32, and should be movable"
    ]
    write(scene.world.folder, {f"{MEMORY}/memory4/valid_zones": "Movable"})
    machine.ledger.blocks_returned([2])
    assert HOLDER.faults(machine, held) == ["memory block 2 is not held any more"]


def test_faults_of_blocks_that_the_kernel_has(scene: Scene) -> None:
    waiting(scene)
    held = scene.again(HOLDER, DEVICE)
    write(scene.world.folder, {f"{MEMORY}/memory3/valid_zones": "Normal"})
    assert HOLDER.faults(scene.machine, held) == [
        "memory block 3 is Normal, which is no low memory"
    ]
    scene.memory.remove(3)
    assert HOLDER.faults(scene.machine, held) == [
        "memory block 3 is not held any more",
        "128MiB are held instead of 256MiB",
    ]


def test_a_block_that_cannot_go_back_yet_is_owed(scene: Scene) -> None:
    waiting(scene)
    scene.memory.busy[5] = [BlockBusy("block 5 holds on")]
    scene.release(HOLDER)
    assert scene.owned == {5: RETURNING}
    assert scene.kinds == {5: "Movable"}
    assert "memory blocks 5 are not as they were found" in scene.notes


def test_a_cancelled_attempt_leaves_nothing(scene: Scene) -> None:
    seen: list[int] = []

    def second(number: int) -> None:
        seen.append(number)
        if len(seen) == 2:
            scene.control.cancel()

    scene.memory.on_switch = second
    with pytest.raises(Cancelled):
        waiting(scene)
    assert (scene.kinds, scene.owned) == ({}, {})


def test_the_keeper_of_blocks_leaves_them_alone(scene: Scene) -> None:
    waiting(scene)
    before = scene.kinds
    started: list[JobKind] = []
    keeper = BlockKeeper(scene.machine, lambda kind, _: started.append(kind))
    keeper.settle()
    keeper.mend()
    assert list(keeper.alerts()) == []
    assert keeper.give_all_back() == []
    assert (scene.kinds, started) == (before, [])
    scene.machine.ledger.unreserved("scsi")
    keeper.settle()
    assert "-" not in scene.kinds.values(), "a block stays offline that nobody wants"
    keeper.mend()
    assert started == [JobKind.GIVE_BACK]


@pytest.mark.parametrize(("devices", "bits"), [((), 30), ((DEVICE,), 32)])
def test_killed_at_any_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], bits: int
) -> None:
    """The next daemon takes down what does not stand, and makes it anew."""
    for point in range(400):
        with monkeypatch.context() as patch:
            scene = make_scene(tmp_path / str(point), patch)
            scene.left = point
            try:
                scene.reserve(HOLDER, Rung.BLOCKS, 256, bits, *devices)
                scene.again(HOLDER, DEVICE)
                scene.release(HOLDER)
                came_through = True
            except Killed:
                came_through = False
            scene.restart()
            found = scene.machine.ledger.touched.reservations.get("scsi")
            if found is not None:
                scene.release(HOLDER)
            scene.tidy()
            assert (scene.kinds, scene.owned) == ({}, {})
            waiting(scene)
            assert HOLDER.faults(scene.machine, scene.on_record) == []
            if came_through:
                assert point > 20
                return
    pytest.fail("it never came through")
