# SPDX-License-Identifier: Apache-2.0
"""A daemon that lends buffers, and programs that have some.

A device-dax region is a file here, so descriptors, mappings and processes are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from tests.unit.daemon.talk import LIMIT
from tests.unit.engine.dma.fakes import add_dax
from tests.unit.fake_huge import HUGE
from zoned.api.client import Client
from zoned.api.types_buffers import BufferInfo
from zoned.daemon.backend import PeerBackend
from zoned.daemon.buffers import BufferDesk
from zoned.daemon.jobs import JobDesk
from zoned.daemon.peer import Peer
from zoned.daemon.server import Server
from zoned.daemon.worker import Worker
from zoned.engine.dma.allot_buffer import Asked
from zoned.engine.engine import Engine
from zoned.engine.jobs.book import JobBook
from zoned.engine.jobs.runner import JobRunner
from zoned.model.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from tests.unit.fakes import World

PAGES = 12
"""Two MiB each, in the reservation."""
CHILD = """
import mmap, sys
from zoned.api.types_buffers import BufferInfo
from zoned.api.client import Client
path, size = sys.argv[1], int(sys.argv[2])
sys.stdin.readline()
client = Client(path)
found, files = client.call_for_files("DmaBuffers.Alloc", BufferInfo, reservation="scsi", size=size)
offset = found.lease.segments[0].offset
mapped = mmap.mmap(files[0], found.lease.segments[0].size, offset=offset)
mapped[:4] = b"mine"
print(found.lease.number, flush=True)
sys.stdin.readline()
"""


class Scene:
    """A daemon's desk for buffers beside a server; the machine stays when they end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.machine = world.machine()
        self.policy = Policy()
        self.region = add_dax(self.machine, world.folder)
        self.socket = world.folder / "socket"
        self.desk: BufferDesk
        self.freed: list[Mapping[str, bool]] = []
        self.show(os.getpid())

    def show(self, pid: int) -> None:
        """Have a real process seen by the machine of files."""
        (self.world.folder / f"proc/{pid}").symlink_to(f"/proc/{pid}")

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Server]:
        worker = Worker()
        # Not started: what nobody wants, as these reservations, would be given back.
        engine = Engine(self.world.machine(), lambda: self.policy)
        engine.machine.policy = self.policy
        runner = engine.jobs = JobRunner(
            JobBook(self.world.folder / "state", "boot"), engine.bodies(), worker.change_and_wait
        )
        self.machine = engine.machine
        self.desk = BufferDesk(engine.machine, worker, self.freed.append)
        desk = JobDesk(runner)
        server = Server(
            self.socket, lambda peer: PeerBackend(engine, worker, desk, self.desk, peer)
        )
        await self.desk.start()
        server.start()
        try:
            yield server
        finally:
            await server.stop()
            await self.desk.stop()
            runner.stop()
            worker.stop()

    @property
    def numbers(self) -> list[int]:
        return sorted(self.machine.ledger.touched.leases)

    @property
    def lent(self) -> list[int]:
        """Return those that are not on their way out, or back."""
        leases = self.machine.ledger.touched.leases
        return sorted(number for number, each in leases.items() if not each.ending)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(LIMIT):
            while not true():
                await asyncio.sleep(0.01)

    async def all_back(self) -> None:
        await self.until(lambda: not self.numbers)


def run(scene: Scene, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's body beside a server, and see that no descriptor is left."""

    async def all_of_it() -> None:
        async with scene.up(), asyncio.timeout(3 * LIMIT):
            await body()

    # The loop of asyncio, and what is imported late, has some of its own.
    asyncio.run(asyncio.sleep(0))
    before = open_files()
    asyncio.run(all_of_it())
    assert open_files() == before


def open_files() -> list[str]:
    links = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except FileNotFoundError:
            continue
    return sorted(link for link in links if not link.startswith("/proc/"))


async def beside(work: Callable[[], Any]) -> Any:
    """Do what blocks in a thread."""
    return await asyncio.to_thread(work)


def alloc(client: Client, pages: int = 1, **more: Any) -> tuple[BufferInfo, list[int]]:
    more = more or {"reservation": "scsi"}
    return client.call_for_files("DmaBuffers.Alloc", BufferInfo, size=pages * HUGE, **more)


def close(files: list[int]) -> None:
    for file in files:
        os.close(file)


@contextlib.asynccontextmanager
async def child(scene: Scene, pages: int) -> AsyncIterator[subprocess.Popen[str]]:
    """A program that has a buffer."""
    command = [sys.executable, "-c", CHILD, str(scene.socket), str(pages * HUGE)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin
        assert process.stdout
        scene.show(process.pid)
        await beside(lambda: write_line(process))
        assert int(await beside(process.stdout.readline)) > 0
        try:
            yield process
        finally:
            process.kill()


def write_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def alloc_and_free(scene: Scene) -> None:
    with Client(scene.socket) as client:
        found, files = alloc(client, 1)
        close(files)
        client.call("DmaBuffers.Free", NoneType, lease=found.lease.number)


def free(scene: Scene, number: int) -> None:
    with Client(scene.socket) as client:
        client.call("DmaBuffers.Free", NoneType, lease=number)


def peer(uid: int, *gids: int, pid: int | None = None) -> Peer:
    return Peer(pid=pid or os.getpid(), uid=uid, gids=frozenset(gids))


ONE = Asked(size=HUGE)
