# SPDX-License-Identifier: Apache-2.0
"""Base zones that come and go, as jobs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_memory import BLOCK, FakeMemory, whole_writes
from tests.unit.fake_sys import write
from tests.unit.fakes import GIB, World, control_of, make_world, started
from zoned.engine.base import bind, offline, online, target
from zoned.engine.jobs.control import Cancelled, Suspended
from zoned.engine.operations import base_remove
from zoned.errors import (
    BadSize,
    BlockBusy,
    BlockRefused,
    BlockTimeout,
    KernelRefused,
    NodeInUse,
    NoRoom,
    NoSuchDax,
    NotRemovable,
    Partial,
    UnknownNode,
    Unsupported,
    UsageError,
)
from zoned.kernel import dax
from zoned.model.base import DaxDevice, DaxMode
from zoned.model.block import PARKED, HeldBlock, Outlook
from zoned.model.job import JobKind
from zoned.model.policy import OnlineBy
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zoned.engine.engine import Engine
    from zoned.engine.jobs.control import JobControl
    from zoned.kernel.root import Root
    from zoned.model.job import JobRequest
    from zoned.model.topology import Block

ADD, REMOVE = JobKind.BASE_ADD, JobKind.BASE_REMOVE
IOMEM = f"""\
00001000-{64 * BLOCK - 1:08x} : System RAM
{64 * BLOCK:08x}-{72 * BLOCK - 1:08x} : dax0.0
  {64 * BLOCK:08x}-{72 * BLOCK - 1:08x} : System RAM (kmem)
"""
PLUGGABLE = (16 * BLOCK, 48 * BLOCK)
NODES = {0: 4 * GIB, 2: 4 * BLOCK}


@dataclass
class Scene:
    """Node 0 with the machine's own memory, and node 2 for what is plugged in."""

    world: World
    memory: FakeMemory
    engine: Engine
    control: JobControl = field(default_factory=control_of)
    mode: DaxMode = DaxMode.DEVDAX
    refuse: Exception | None = None
    on_bind: Callable[[], None] = lambda: None

    def run(self, kind: JobKind, base: str, **more: Any) -> JobRequest:
        request, body = self.engine.prepare(kind, {"base": base, **more})
        self.control = control_of()
        body(self.control)
        return request

    def notes(self) -> str:
        return "\n".join(self.control.progress.notes)

    def held(self) -> list[int]:
        return list(self.engine.machine.ledger.touched.blocks)

    # The dax bus

    def read_dax(self, _: Root) -> tuple[DaxDevice, ...]:
        ranges = ((64 * BLOCK - 4096, 4 * BLOCK + 4096),)
        return (
            DaxDevice(name="dax0.0", size=4 * BLOCK, node=2, mode=self.mode, ranges=ranges),
            DaxDevice(name="dax1.0", size=4096, node=2, mode=self.mode, ranges=((0, 4096),)),
            DaxDevice(name="dax2.0", size=4096, node=None, mode=self.mode),
        )

    def bind(self, _: Root, device: DaxDevice) -> None:
        self.on_bind()
        if self.refuse:
            raise self.refuse
        assert self.memory.auto_online() == "offline"
        self.mode = DaxMode.SYSTEM_RAM
        self.memory.add(2, *device.blocks(BLOCK))

    def unbind(self, _: Root, device: DaxDevice) -> None:
        if self.refuse:
            raise self.refuse
        self.mode = DaxMode.DEVDAX
        self.memory.remove(*device.blocks(BLOCK) & self.memory.kinds().keys())


def set_free(world: World, node: int, size: int) -> None:
    """Have so many bytes of a node free."""
    text = f"Node {node} MemTotal: {NODES[node] >> 10} kB\nNode {node} MemFree: {size >> 10} kB"
    write(world.folder, {f"sys/devices/system/node/node{node}/meminfo": text})


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    whole_writes(monkeypatch)
    world, memory = make_world(tmp_path, NODES), FakeMemory(tmp_path)
    memory.tell(IOMEM, PLUGGABLE)
    for node, size in NODES.items():
        set_free(world, node, size - (100 << 20))
    memory.add(0, 0, 1, zone="Normal")
    write(tmp_path, {"proc/sys/vm/drop_caches": "0"})
    found = Scene(world, memory, started(world))
    for module in (online, base_remove):
        monkeypatch.setattr(module, "BlockSwitch", memory.switch)
    monkeypatch.setattr(offline, "put_back_strays", lambda *_: memory.done.append("strays"))
    monkeypatch.setattr(offline, "_PAUSE", 0)
    monkeypatch.setattr(bind, "to_system_ram", found.bind)
    monkeypatch.setattr(bind, "to_devdax", found.unbind)
    for module in (dax, target):
        monkeypatch.setattr(module, "read_dax", found.read_dax)
    return found


# Coming


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


def test_what_cannot_be_mended_is_told(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, 18, zone="Normal")
    scene.memory.busy[18] = [BlockBusy("18 has slab")]
    with pytest.raises(Partial, match="memory blocks 18 of node 2 stay"):
        scene.run(ADD, "2")
    assert scene.memory.kinds()[17] == "Movable"
    assert scene.memory.kinds()[18] == "Normal"
    assert "18 has slab" in scene.notes()
    assert not scene.held()


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


@pytest.mark.parametrize("kind", [ADD, REMOVE])
def test_machine_without_memory_hotplug(scene: Scene, kind: JobKind) -> None:
    (scene.world.folder / "sys/devices/system/memory/block_size_bytes").unlink()
    with pytest.raises(Unsupported):
        scene.engine.prepare(kind, {"base": "2"})


# Going


@pytest.fixture
def there(scene: Scene) -> Scene:
    """Have a base zone of a kernel's block and three movable ones on node 2."""
    scene.memory.add(2, 16, zone="Normal")
    scene.memory.add(2, 17, 18, 19, zone="Movable")
    return scene


FULL = {0: "Normal", 1: "Normal", 16: "Normal", 17: "Movable", 18: "Movable", 19: "Movable"}
GONE = FULL | dict.fromkeys((16, 17, 18, 19), "-")


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


def test_kept_where_that_is_wished(there: Scene) -> None:
    there.memory.busy[17] = [BlockRefused("holes")]
    with pytest.raises(Partial, match="memory blocks 18-19 are offline, then: holes"):
        there.run(REMOVE, "2", keep=True)
    assert there.memory.kinds() == FULL | {18: "-", 19: "-"}
    assert not there.held()


def test_cancelled_half_way(there: Scene) -> None:
    there.memory.on_switch = lambda number: there.control.cancel() if number == 18 else None
    with pytest.raises(Cancelled):
        there.run(REMOVE, "2")
    assert there.memory.kinds() == FULL
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


def test_both_kinds_change_blocks() -> None:
    assert ADD.changes_blocks
    assert REMOVE.changes_blocks


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
