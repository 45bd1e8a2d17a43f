# SPDX-License-Identifier: Apache-2.0
"""The watch over the fence: there while one stands, and not to be kept busy."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.unit.engine.fence.fakes import FakeFence, nodes, outsider
from tests.unit.fakes import make_world
from zoned.daemon import fence as fence_module
from zoned.daemon.fence import FenceGuard
from zoned.engine.fence.keep import keep_fence
from zoned.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

    from zoned.engine.machine import Machine
    from zoned.kernel.cgroup.watch import GroupWatch

LIMIT = 20.0
FENCED = nodes(1)


@dataclass
class WatchedFence(FakeFence):
    """Has a folder of its own, so that the kernel's real inotify is heard."""

    paths: tuple[Path, ...] = ()

    def watched(self) -> tuple[Path, ...]:
        return self.paths


@dataclass
class Scene:
    """A guard in a running loop."""

    machine: Machine
    folder: Path
    guard: FenceGuard
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    looks: int = 0

    def look(self) -> None:
        self.looks += 1
        self.looked.set()

    async def next_look(self) -> None:
        await asyncio.wait_for(self.looked.wait(), LIMIT)
        self.looked.clear()

    async def keep(self, fenced: frozenset[int]) -> None:
        await asyncio.to_thread(keep_fence, self.machine, fenced)
        # What the thread had the loop do is done.
        await asyncio.sleep(0)


def run(tmp_path: Path, body: Callable[[Scene], Coroutine[None, None, None]]) -> None:
    """Run the body in a loop with a guard."""

    async def whole() -> None:
        machine = make_world(tmp_path).machine()
        folder = tmp_path / "groups"
        folder.mkdir()
        machine.fence = WatchedFence(paths=(folder,)).add(outsider("system.slice"))
        scene: Scene
        guard = FenceGuard(machine, lambda: scene.look())
        scene = Scene(machine=machine, folder=folder, guard=guard)
        try:
            await body(scene)
        finally:
            guard.close()

    asyncio.run(whole())


def descriptors() -> int:
    """Return how many inotify descriptors this process has."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += "inotify" in str(link.readlink())
    return found


def test_open_while_a_fence_stands_and_no_longer(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        assert descriptors() == 0
        await scene.keep(FENCED)
        # What came before it was watched.
        await scene.next_look()
        assert descriptors() == 1
        await scene.keep(FENCED)
        assert descriptors() == 1

        (scene.folder / "machine.slice").mkdir()
        await scene.next_look()

        await scene.keep(nodes())
        assert descriptors() == 0
        assert scene.looks == 2

    run(tmp_path, body)


def test_closed_with_the_daemon(tmp_path: Path) -> None:
    async def body(scene: Scene) -> None:
        await scene.keep(FENCED)
        changed = scene.machine.fence_changed
        scene.guard.close()
        assert descriptors() == 0
        changed()
        await asyncio.sleep(0)
        assert descriptors() == 0
        scene.machine.fence_changed()

    run(tmp_path, body)


def test_somebody_who_writes_on_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(scene: Scene) -> None:
        monkeypatch.setattr(fence_module, "PAUSE", 3600.0)
        await scene.keep(FENCED)
        await scene.next_look()
        (scene.folder / "first").mkdir()
        await scene.next_look()
        timers = []
        for name in "abc":
            (scene.folder / name).mkdir()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            timers.append(scene.guard._timer)
        assert scene.looks == 2

        # The pause is over.
        monkeypatch.setattr(fence_module, "PAUSE", 0.0)
        scene.guard._next = 0.0
        assert timers[0] is not None
        assert timers[0] is timers[1] is timers[2]
        timers[0].cancel()
        scene.guard._act()
        assert scene.looks == 3
        (scene.folder / "d").mkdir()
        scene.looked.clear()
        await scene.next_look()

    run(tmp_path, body)


def test_where_nothing_can_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(scene: Scene) -> None:
        def refuse() -> GroupWatch:
            raise Unsupported("cannot watch groups: none left")

        monkeypatch.setattr(fence_module, "GroupWatch", refuse)
        await scene.keep(FENCED)
        assert "from time to time" in caplog.text
        assert scene.looks == 0

    run(tmp_path, body)


def test_a_machine_without_a_fence(tmp_path: Path) -> None:
    async def body() -> None:
        machine = make_world(tmp_path).machine()
        guard = FenceGuard(machine, lambda: None)
        machine.fence_changed()
        await asyncio.sleep(0)
        assert descriptors() == 0
        guard.close()

    asyncio.run(body())
