# SPDX-License-Identifier: Apache-2.0
"""Buffers over the socket: each ends with its program, and who misbehaves harms nobody.

A device-dax region is a file here, so descriptors, mappings and processes are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.daemon.talk import LIMIT, request
from tests.unit.engine.dma.fakes import add_dax, dax_held
from tests.unit.fake_huge import HUGE
from tests.unit.fakes import World, make_world
from zoned.api.client import Client
from zoned.api.types_buffers import BufferInfo, LeasesInfo
from zoned.daemon import buffers as buffers_module
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
from zoned.errors import Denied, LeaseGone, NoSuchProcess, PoolBusy, PoolExhausted
from zoned.model.dma.match import Match
from zoned.model.dma.wish import DmaPolicy, Wish
from zoned.model.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

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
        self.desk = BufferDesk(engine.machine, worker)
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


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(buffers_module, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(buffers_module, "LAST_LOOK", 0.05)
    return Scene(make_world(tmp_path))


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


def test_buffer_comes_with_its_descriptor(scene: Scene) -> None:
    scene.region.write_bytes(b"x" * 16 * HUGE)

    def use() -> None:
        with Client(scene.socket) as client:
            found, files = alloc(client, 6, device="04:00.0", align=1 << 20)
            (file,) = files
            assert (found.file, found.dmabuf, found.granule) == (0, None, HUGE)
            assert not os.get_inheritable(file)
            lease = found.lease
            assert (lease.reservation, lease.pid, lease.uid) == ("scsi", os.getpid(), os.getuid())
            (segment,) = lease.segments
            assert (lease.size, segment.size) == (6 * HUGE, 6 * HUGE)
            with mmap.mmap(file, segment.size, offset=segment.offset or 0) as mapped:
                assert mapped[:] == bytes(segment.size)
            told = client.call("DmaBuffers.Leases", LeasesInfo)
            assert [each.number for each in told.leases] == [lease.number]
            (pool,) = told.pools
            assert (pool.size, pool.leased, pool.free) == (12 * HUGE, 6 * HUGE, 6 * HUGE)
            assert (pool.largest, pool.runs, pool.fragmentation) == (4 * HUGE, 2, 0.333)
            os.close(file)
            client.call("DmaBuffers.Free", NoneType, lease=lease.number)
            with pytest.raises(LeaseGone):
                client.call("DmaBuffers.Free", NoneType, lease=lease.number)

    async def body() -> None:
        await beside(use)
        await scene.all_back()
        # Who has no buffers any more need not be watched.
        await scene.until(lambda: not scene.desk._watched)

    run(scene, body)


def test_freed_buffer_is_somebody_elses_only_when_it_is_unmapped(scene: Scene) -> None:
    def use() -> mmap.mmap:
        with Client(scene.socket) as client:
            found, (file,) = alloc(client, 8)
            (segment,) = found.lease.segments
            mapped = mmap.mmap(file, HUGE, offset=(segment.offset or 0) + 3 * HUGE)
            os.close(file)
            client.call("DmaBuffers.Free", NoneType, lease=found.lease.number)
            return mapped

    def ask() -> None:
        with Client(scene.socket) as client:
            (lease,) = client.call("DmaBuffers.Leases", LeasesInfo).leases
            assert lease.ending
            with pytest.raises(PoolExhausted):
                alloc(client, 5)

    async def body() -> None:
        mapped = await beside(use)
        await beside(ask)
        mapped.close()
        await scene.all_back()

    run(scene, body)


@contextlib.asynccontextmanager
async def child(scene: Scene, pages: int) -> AsyncIterator[subprocess.Popen[str]]:
    """A program that has a buffer."""
    command = [sys.executable, "-c", CHILD, str(scene.socket), str(pages * HUGE)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin
        assert process.stdout
        scene.show(process.pid)
        await beside(lambda: _write_line(process))
        assert int(await beside(process.stdout.readline)) > 0
        try:
            yield process
        finally:
            process.kill()


def _write_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_lease_ends_with_its_program(scene: Scene) -> None:
    async def body() -> None:
        async with child(scene, 12) as process:
            (lease,) = scene.machine.ledger.touched.leases.values()
            assert lease.pid == process.pid
            process.kill()
            await scene.all_back()
            assert not scene.desk._watched

    run(scene, body)


def test_leases_of_the_living_outlive_a_restart(scene: Scene) -> None:
    async def twice() -> None:
        async with scene.up(), child(scene, 2) as living:
            async with child(scene, 3) as dead:
                pids = {each.pid for each in scene.machine.ledger.touched.leases.values()}
                assert pids == {living.pid, dead.pid}
                await scene.desk.stop()
            await beside(dead.wait)
            async with scene.up():
                await scene.until(lambda: len(scene.numbers) == 1)
                (lease,) = scene.machine.ledger.touched.leases.values()
                assert (lease.pid, lease.ending) == (living.pid, False)
                living.kill()
                await scene.all_back()

    asyncio.run(twice())


def test_client_that_does_not_read_harms_nobody(scene: Scene) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lazy:
            lazy.settimeout(0)
            await loop.sock_connect(lazy, str(scene.socket))
            call = request("DmaBuffers.Alloc", reservation="scsi", size=HUGE)
            await loop.sock_sendall(lazy, call * 8)
            await scene.until(lambda: len(scene.lent) == 8)
            await beside(lambda: _alloc_and_free(scene))
            await scene.until(lambda: len(scene.numbers) == 8)
        # The connection is gone, the program is not: its leases stand until it ends or frees them.
        for number in scene.numbers:
            await asyncio.to_thread(_free, scene, number)
        await scene.all_back()

    run(scene, body)


def _alloc_and_free(scene: Scene) -> None:
    with Client(scene.socket) as client:
        found, files = alloc(client, 1)
        close(files)
        client.call("DmaBuffers.Free", NoneType, lease=found.lease.number)


def _free(scene: Scene, number: int) -> None:
    with Client(scene.socket) as client:
        client.call("DmaBuffers.Free", NoneType, lease=number)


def test_client_that_hangs_up_in_mid_call(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        gate = asyncio.Event()
        look = scene.desk._worker.look

        async def slow(work: Callable[[], Any]) -> Any:
            await gate.wait()
            return await look(work)

        monkeypatch.setattr(scene.desk._worker, "look", slow)
        _, writer = await asyncio.open_unix_connection(scene.socket)
        writer.write(request("DmaBuffers.Alloc", reservation="scsi", size=HUGE))
        await writer.drain()
        await scene.until(lambda: True)
        writer.transport.abort()
        gate.set()
        await scene.until(lambda: bool(scene.lent))
        await beside(lambda: _free(scene, scene.numbers[0]))
        await scene.all_back()

    run(scene, body)


def test_who_wants_no_reply_gets_no_descriptor(scene: Scene) -> None:
    call = {
        "method": "io.zoned.DmaBuffers.Alloc",
        "parameters": {"reservation": "scsi", "size": HUGE},
        "oneway": True,
    }

    async def body() -> None:
        _, writer = await asyncio.open_unix_connection(scene.socket)
        writer.write(json.dumps(call).encode() + b"\0")
        await writer.drain()
        await scene.until(lambda: bool(scene.lent))
        await scene.until(lambda: str(scene.region) not in open_files())
        await beside(lambda: _free(scene, scene.numbers[0]))
        await scene.all_back()
        writer.close()
        await writer.wait_closed()

    run(scene, body)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"size": HUGE}, "bad-input"),
        ({"size": HUGE, "reservation": "scsi", "device": "0000:04:00.0"}, "bad-input"),
        ({"size": HUGE, "reservation": "no"}, "no-such-reservation"),
        ({"size": HUGE, "device": "x" * 5000}, "no-such-reservation"),
        ({"size": 0, "reservation": "scsi"}, "bad-size"),
        ({"size": -HUGE, "reservation": "scsi"}, "bad-size"),
        ({"size": 1 << 70, "reservation": "scsi"}, "bad-size"),
        ({"size": 13 * HUGE, "reservation": "scsi"}, "pool-exhausted"),
        ({"size": 9 * HUGE, "reservation": "scsi", "segments": 1}, "pool-exhausted"),
        ({"size": HUGE, "reservation": "scsi", "segments": 0}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": 3}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": -4096}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": 1 << 64}, "usage"),
        ({"size": HUGE, "reservation": "scsi", "align": 1 << 62}, "pool-exhausted"),
        ({"size": HUGE, "reservation": "scsi", "dmabuf": True}, "unsupported"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    scene: Scene, parameters: dict[str, Any], code: str
) -> None:
    def ask() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(str(scene.socket))
            raw.sendall(request("DmaBuffers.Alloc", **parameters))
            found: dict[str, Any] = json.loads(raw.recv(65536)[:-1])
            return found

    async def body() -> None:
        told = await beside(ask)
        assert told["parameters"]["code"] == code
        await scene.all_back()

    run(scene, body)


def peer(uid: int, *gids: int, pid: int | None = None) -> Peer:
    return Peer(pid=pid or os.getpid(), uid=uid, gids=frozenset(gids))


ONE = Asked(size=HUGE)


def test_only_whom_the_reservation_names(scene: Scene) -> None:
    group = grp.getgrgid(1)
    wish = Wish(name="scsi", match=Match(), size=1, users=("nobody",), groups=(group.gr_name,))
    scene.policy = Policy(dma=DmaPolicy(wishes=(wish,)))

    async def body() -> None:
        for wrong in (peer(4000), peer(4000, 5)):
            with pytest.raises(Denied):
                await scene.desk.alloc(wrong, "scsi", None, ONE, dmabuf=False)
            assert (await scene.desk.leases(wrong)).pools == []
        handed = await scene.desk.alloc(peer(4000, 1), "scsi", None, ONE, dmabuf=False)
        handed.close()
        with pytest.raises(PoolBusy):
            await scene.desk.alloc(peer(65534), "scsi", None, ONE, dmabuf=False)
        assert (await scene.desk.leases(peer(65534))).leases == []
        (mine,) = (await scene.desk.leases(peer(4000, 1))).leases
        assert (mine.number, mine.user) == (handed.lease.number, "4000")
        assert [pool.reservation for pool in (await scene.desk.leases(peer(65534))).pools] == [
            "scsi"
        ]
        with pytest.raises(LeaseGone):
            await scene.desk.free(peer(4000, 1, pid=1), mine.number)
        await scene.desk.free(peer(4000, 1), mine.number)
        await scene.all_back()

    run(scene, body)


def test_program_that_ends_while_it_is_served(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            scene.show(process.pid)
            hand_out = scene.desk._book.hand_out

            def slow(*args: Any, **more: Any) -> Any:
                process.kill()
                process.wait()
                return hand_out(*args, **more)

            monkeypatch.setattr(scene.desk._book, "hand_out", slow)
            asked = scene.desk.alloc(peer(0, pid=process.pid), "scsi", None, ONE, dmabuf=False)
            # The news of its end may come just behind.
            with contextlib.suppress(NoSuchProcess):
                (await asked).close()
            await scene.all_back()
        with pytest.raises(NoSuchProcess):
            await scene.desk.alloc(peer(0, pid=process.pid), "scsi", None, ONE, dmabuf=False)

    run(scene, body)


def test_without_pidfds_the_end_is_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers_module, "open_pidfd", lambda *_: None)
    monkeypatch.setattr(buffers_module, "BLIND", 0.01)

    async def body() -> None:
        async with child(scene, 1) as process:
            assert len(scene.numbers) == 1
            process.kill()
            await scene.all_back()

    run(scene, body)


def test_pool_that_cannot_be_seen(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.machine.ledger.reserved(dax_held("other"))

    async def body() -> None:
        (scene.world.folder / "sys/bus/dax/devices/dax0.0/align").write_text("x")
        pools = (await scene.desk.leases(peer(0))).pools
        assert [(each.reservation, each.free, each.size) for each in pools] == [
            ("other", None, 12 * HUGE),
            ("scsi", None, 12 * HUGE),
        ]
        assert "cannot tell what is free of scsi" in caplog.text

    run(scene, body)


def test_defect_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        def broken(*_: object) -> None:
            raise KeyError("what")

        monkeypatch.setattr(scene.desk._book, "take_back", broken)
        scene.desk._something_ends.set()
        await scene.until(lambda: "KeyError: 'what'" in caplog.text)

    run(scene, body)
