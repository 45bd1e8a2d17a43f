# SPDX-License-Identifier: Apache-2.0
"""A machine of files to which memory comes, and from which it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.unit.fake_memory import BLOCK, FakeMemory, whole_writes
from tests.unit.fake_sys import NODES as NODE_FILES
from tests.unit.fake_sys import write
from tests.unit.fakes import GIB, World, control_of, make_world, started
from zoned.daemon.base import list_base
from zoned.engine.base import bind, offline, online, regions, target
from zoned.engine.blocks import strays
from zoned.engine.operations import base_remove
from zoned.idset import format_ids
from zoned.kernel import dax
from zoned.kernel.base_zones import read_base_zones
from zoned.model.base import DaxDevice, DaxMode
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from zoned.engine.engine import Engine
    from zoned.engine.jobs.control import JobControl
    from zoned.kernel.root import Root
    from zoned.model.job import JobRequest

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
    """Node 0 with the machine's own memory, node 2 for what is plugged in, and what is done."""

    world: World
    memory: FakeMemory
    engine: Engine
    control: JobControl = field(default_factory=control_of)
    mode: DaxMode = DaxMode.DEVDAX
    refuse: Exception | None = None
    on_bind: Callable[[], None] = lambda: None
    on_step: Callable[[], None] = lambda: None
    """called before each change of a region's driver"""

    def run(self, kind: JobKind, base: str, **more: Any) -> JobRequest:
        request, body = self.engine.prepare(kind, {"base": base, **more})
        self.control = control_of()
        body(self.control)
        return request

    def notes(self) -> str:
        return "\n".join(self.control.progress.notes)

    def held(self) -> list[int]:
        return list(self.engine.machine.ledger.touched.blocks)

    def restart(self) -> None:
        """Start the daemon anew, with the policy that it had."""
        policy = self.engine.machine.policy
        self.engine = started(self.world, policy)

    def tell_kernel_memory(self) -> None:
        """Have the kernel list the nodes with memory that it can use for itself."""
        found = {each.node for each in read_base_zones(self.engine.machine.root) if each.kernel}
        write(self.world.folder, {f"{NODE_FILES}/has_normal_memory": format_ids(found)})

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
        self.on_step()
        self.mode = DaxMode.DISABLED
        self.on_step()
        self.mode = DaxMode.SYSTEM_RAM
        self.memory.add(2, *device.blocks(BLOCK))

    def unbind(self, _: Root, device: DaxDevice) -> None:
        if self.refuse:
            raise self.refuse
        self.on_step()
        self.mode = DaxMode.DISABLED
        self.memory.remove(*device.blocks(BLOCK) & self.memory.kinds().keys())
        self.on_step()
        self.mode = DaxMode.DEVDAX


def set_free(world: World, node: int, size: int) -> None:
    """Have so many bytes of a node free."""
    text = f"Node {node} MemTotal: {NODES[node] >> 10} kB\nNode {node} MemFree: {size >> 10} kB"
    write(world.folder, {f"sys/devices/system/node/node{node}/meminfo": text})


def add(scene: Scene, base: str = "2", **more: Any) -> str:
    """Add a base zone of movable memory alone; return what the job is called."""
    request = scene.run(ADD, base, movable_only=True, **more)
    scene.tell_kernel_memory()
    return request.what


def marked(scene: Scene) -> set[int]:
    """Return the nodes that are for movable memory alone, as users are told."""
    return {each.node for each in list_base(scene.engine.machine).nodes if each.movable_only}


def kinds(scene: Scene) -> str:
    """Return the kinds of the blocks of node 2."""
    letters = {"Normal": "K", "Movable": "M", "-": "-"}
    return "".join(letters[kind] for number, kind in scene.memory.kinds().items() if number > 1)


def make_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return the machine with a daemon that was started on it."""
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
    world.add_process(70, mems="0")

    def moved(*_: object) -> int:
        memory.done.append("strays")
        return 0

    monkeypatch.setattr(strays, "move_all_pages", moved)
    monkeypatch.setattr(offline, "_PAUSE", 0)
    monkeypatch.setattr(bind, "to_system_ram", found.bind)
    monkeypatch.setattr(bind, "to_devdax", found.unbind)
    for module in (bind, dax, regions, target):
        monkeypatch.setattr(module, "read_dax", found.read_dax)
    return found
