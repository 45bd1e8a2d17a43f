# SPDX-License-Identifier: Apache-2.0
"""Base zones that go: what is in the way, and what comes back when that does not work out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.operations.base_scene import ADD, REMOVE, set_free
from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import GIB, control_of, started
from zoned.engine.base import offline, target
from zoned.engine.jobs.control import Cancelled, Suspended
from zoned.errors import (
    BlockBusy,
    BlockRefused,
    BlockTimeout,
    KernelRefused,
    NodeInUse,
    NoRoom,
    NotAsWritten,
    NotRemovable,
    Partial,
    Unsupported,
)
from zoned.kernel import dax
from zoned.model.base import DaxMode
from zoned.model.block import Outlook
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.engine.operations.base_scene import Scene
    from zoned.kernel.root import Root
    from zoned.model.base import DaxDevice
    from zoned.model.topology import Block

FULL = {0: "Normal", 1: "Normal", 16: "Normal", 17: "Movable", 18: "Movable", 19: "Movable"}
GONE = FULL | dict.fromkeys((16, 17, 18, 19), "-")


@pytest.fixture
def there(scene: Scene) -> Scene:
    """Have a base zone of a kernel's block and three movable ones on node 2."""
    scene.memory.add(2, 16, zone="Normal")
    scene.memory.add(2, 17, 18, 19, zone="Movable")
    return scene


def test_all_blocks_go_and_nothing_is_owed(there: Scene) -> None:
    owed = []
    there.memory.on_switch = lambda _: owed.append(there.held())
    there.run(REMOVE, "2")
    assert there.memory.done == [
        "19 offline",
        "18 offline",
        "17 offline",
        "16 offline",
        "strays",
    ]
    assert owed[0] == [19]
    assert owed[-1] == [19, 18, 17, 16]
    assert not there.held()
    assert there.memory.kinds() == GONE
    assert "zonectl base add 2" in there.notes()


def test_region_is_for_programs_again(scene: Scene) -> None:
    scene.run(ADD, "dax0.0")
    scene.run(REMOVE, "2")
    assert scene.mode is DaxMode.DEVDAX
    assert 64 not in scene.memory.kinds()
    assert not scene.held()


def test_region_that_does_not_come_back_is_memory_again(scene: Scene) -> None:
    scene.run(ADD, "dax0.0")
    before = scene.memory.kinds()
    scene.refuse = KernelRefused("no")
    with pytest.raises(KernelRefused):
        scene.run(REMOVE, "dax0.0")
    assert scene.memory.kinds() == before
    assert not scene.held()


def test_zones_are_in_the_way(there: Scene) -> None:
    there.engine.create(ZoneSpec(name="db", size=GIB // 4, nodes="2"))
    with pytest.raises(NodeInUse, match="in use by zone db"):
        there.engine.prepare(REMOVE, {"base": "2"})


@pytest.mark.parametrize("when", [18, 16])
def test_zone_that_comes_meanwhile(there: Scene, when: int) -> None:
    def create(number: int) -> None:
        if number == when and not there.engine.machine.store.zones:
            there.engine.create(ZoneSpec(name="db", size=GIB // 4, nodes="2"))

    there.memory.on_switch = create
    with pytest.raises(NodeInUse, match="db"):
        there.run(REMOVE, "2")
    assert there.memory.kinds() == FULL
    assert not there.held()


def test_block_that_cannot_go_brings_all_back(
    there: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survey(_: Root, blocks: list[Block]) -> Iterator[Outlook]:
        yield Outlook(block=blocks[0], can=False, why="3 pages of slab")

    monkeypatch.setattr(offline, "survey", survey)
    there.memory.busy[16] = [BlockBusy("slab") for _ in range(offline._TRIES)]
    with pytest.raises(BlockBusy, match=r"^slab \(3 pages of slab\)") as caught:
        there.run(REMOVE, "2")
    assert "still run" in caught.value.hint
    assert there.memory.kinds() == FULL
    assert not there.held()
    assert (there.world.folder / "proc/sys/vm/drop_caches").read_text().startswith("2")


def test_kernel_gets_time_to_give_up_what_it_remembers(there: Scene) -> None:
    there.memory.busy[16] = [BlockBusy("slab"), BlockBusy("slab")]
    there.run(REMOVE, "2")
    assert there.memory.kinds() == GONE


@pytest.mark.parametrize("error", [BlockRefused("holes"), BlockTimeout("pinned")])
def test_what_more_tries_do_not_help(there: Scene, error: Exception) -> None:
    there.memory.busy[17] = [error]  # type: ignore[list-item]
    with pytest.raises(type(error)):
        there.run(REMOVE, "2")
    assert there.memory.kinds() == FULL
    assert there.memory.done[-2:] == ["19 online_movable", "strays"]


def test_pages_stray_from_a_block_that_stays(there: Scene) -> None:
    there.memory.busy[19] = [BlockRefused("holes")]
    with pytest.raises(BlockRefused):
        there.run(REMOVE, "2")
    assert there.memory.done == ["strays"]


def test_kept_where_that_is_wished(there: Scene) -> None:
    there.memory.busy[17] = [BlockRefused("holes")]
    with pytest.raises(Partial, match="memory blocks 18-19 are offline, then: holes"):
        there.run(REMOVE, "2", keep=True)
    assert there.memory.kinds() == FULL | {18: "-", 19: "-"}
    assert there.memory.done == ["19 offline", "18 offline", "strays"]
    assert not there.held()


def bring_back_19(there: Scene) -> None:
    """Have somebody else bring block 19 online once 16, the last one, is about to go."""

    def other(number: int) -> None:
        if number == 16:
            there.memory.on_switch = lambda _: None
            there.memory.remove(19)
            there.memory.add(2, 19, zone="Movable")

    there.memory.on_switch = other


def test_block_that_somebody_else_brings_online_again(there: Scene) -> None:
    bring_back_19(there)
    with pytest.raises(NotAsWritten, match="memory blocks 19 of node 2 were brought online"):
        there.run(REMOVE, "2")
    assert there.memory.kinds() == FULL
    assert not there.held()


def test_block_that_somebody_else_brings_online_again_is_not_told_as_kept(there: Scene) -> None:
    bring_back_19(there)
    with pytest.raises(Partial, match="memory blocks 16-18 are offline, then: memory blocks 19"):
        there.run(REMOVE, "2", keep=True)
    assert not there.held()


def test_cancelled_half_way(there: Scene) -> None:
    there.memory.on_switch = lambda number: there.control.cancel() if number == 18 else None
    with pytest.raises(Cancelled):
        there.run(REMOVE, "2")
    assert there.memory.kinds() == FULL
    assert there.memory.done == ["19 offline", "19 online_movable", "strays"]
    assert not there.held()


def test_cut_off_half_way_and_taken_up_again(there: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    there.memory.on_switch = lambda number: there.control.suspend() if number == 18 else None
    request, body = there.engine.prepare(REMOVE, {"base": "2"})
    there.control = control_of()
    with pytest.raises(Suspended):
        body(there.control)
    assert there.held() == [19]
    there.memory.on_switch = lambda _: None
    monkeypatch.setattr("zoned.engine.blocks.keeper.BlockSwitch", there.memory.switch)
    there.engine = started(there.world)
    assert there.memory.kinds() == FULL
    assert not there.held()
    there.engine.bodies()[REMOVE](request)(control_of())
    assert there.memory.kinds() == GONE
    assert not there.held()


def test_what_is_offline_already_is_not_brought_back(there: Scene) -> None:
    there.memory.add(2, 20)
    there.memory.busy[16] = [BlockRefused("holes")]
    with pytest.raises(BlockRefused):
        there.run(REMOVE, "2")
    assert there.memory.kinds() == FULL | {20: "-"}


def test_memory_of_the_start_stays(there: Scene) -> None:
    with pytest.raises(NotRemovable, match="started with"):
        there.engine.prepare(REMOVE, {"base": "0"})


def test_what_is_in_use_there_needs_room(there: Scene) -> None:
    set_free(there.world, 0, 256 << 20)
    set_free(there.world, 2, 1 << 20)
    with pytest.raises(NoRoom, match="remove base zone 2: 511MiB have to move"):
        there.engine.prepare(REMOVE, {"base": "2"})
    set_free(there.world, 2, 3 * BLOCK)
    there.engine.prepare(REMOVE, {"base": "2"})


def test_region_on_a_node_of_the_start_can_leave(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_dax(_: Root) -> tuple[DaxDevice, ...]:
        return (replace(scene.read_dax(_)[0], node=0),)

    for module in (dax, target):
        monkeypatch.setattr(module, "read_dax", read_dax)
    scene.memory.add(0, 64, zone="Movable")
    scene.mode = DaxMode.SYSTEM_RAM
    scene.run(REMOVE, "dax0.0")
    assert scene.memory.kinds() == {0: "Normal", 1: "Normal"}


def test_machine_without_memory_hotplug(scene: Scene) -> None:
    (scene.world.folder / "sys/devices/system/memory/block_size_bytes").unlink()
    with pytest.raises(Unsupported):
        scene.engine.prepare(REMOVE, {"base": "2"})
