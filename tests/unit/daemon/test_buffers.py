# SPDX-License-Identifier: Apache-2.0
"""Buffers over the socket: each ends with its program.

A device-dax region is a file here, so descriptors, mappings and processes are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import mmap
import os
import subprocess
import sys
import threading
from types import NoneType
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.daemon.buffer_scene import ONE, Scene, alloc, beside, child, peer, run
from tests.unit.daemon.talk import LIMIT
from tests.unit.engine.dma.fakes import dax_held
from tests.unit.fake_huge import HUGE
from zoned.api.client import Client
from zoned.api.types_buffers import LeasesInfo
from zoned.daemon import buffers as buffers_module
from zoned.engine.dma.allot_buffer import Asked
from zoned.engine.dma.leases import LeaseBook
from zoned.errors import Denied, LeaseGone, NoSuchProcess, PoolBusy, PoolExhausted
from zoned.model.dma.match import Match
from zoned.model.dma.wish import DmaPolicy, Wish
from zoned.model.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Collection

    from zoned.model.dma.held import Held
    from zoned.model.dma.offer import Span


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


def test_freed_buffer_is_somebody_elses_only_when_it_is_unmapped(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers_module, "WAIT", 0.1)

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


def test_memory_that_is_on_its_way_back_is_waited_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers_module, "WAIT", 60.0)
    refused: list[str] = []
    returning = LeaseBook.returning

    def looked(book: LeaseBook, name: str) -> bool:
        refused.append(name)
        return returning(book, name)

    monkeypatch.setattr(LeaseBook, "returning", looked)

    async def body() -> None:
        first = await scene.desk.alloc(peer(0), "scsi", None, Asked(size=8 * HUGE), dmabuf=False)
        mapped = mmap.mmap(first.file, HUGE, offset=first.offsets[0])
        first.close()
        await scene.desk.free(peer(0), first.lease.number)
        second = asyncio.create_task(
            scene.desk.alloc(peer(0), "scsi", None, Asked(size=8 * HUGE), dmabuf=False)
        )
        await scene.until(lambda: bool(refused))
        assert not second.done()
        mapped.close()
        handed = await second
        assert handed.lease.number != first.lease.number
        handed.close()
        await scene.desk.free(peer(0), handed.lease.number)
        await scene.all_back()

    run(scene, body)


def test_memory_that_came_back_during_the_look_counts(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers_module, "WAIT", 60.0)
    came_back, looks = threading.Event(), list[int]()
    spans, forget = LeaseBook.spans, LeaseBook.forget

    def look(book: LeaseBook, held: Held) -> tuple[Span, ...]:
        looks.append(1)
        if len(looks) > 1:
            return spans(book, held)
        assert came_back.wait(LIMIT)
        return ()  # as it was when the look began

    def forgotten(book: LeaseBook, numbers: Collection[int]) -> dict[str, bool]:
        found = forget(book, numbers)
        came_back.set()
        return found

    monkeypatch.setattr(LeaseBook, "forget", forgotten)

    async def body() -> None:
        first = await scene.desk.alloc(peer(0), "scsi", None, ONE, dmabuf=False)
        first.close()
        monkeypatch.setattr(LeaseBook, "spans", look)
        second = asyncio.create_task(scene.desk.alloc(peer(0), "scsi", None, ONE, dmabuf=False))
        await scene.until(lambda: bool(looks))
        await scene.desk.free(peer(0), first.lease.number)
        handed = await second
        handed.close()
        await scene.desk.free(peer(0), handed.lease.number)
        await scene.all_back()

    run(scene, body)


def test_lease_ends_with_its_program(scene: Scene) -> None:
    async def body() -> None:
        async with child(scene, 12) as process:
            (lease,) = scene.machine.ledger.touched.leases.values()
            assert lease.pid == process.pid
            process.kill()
            await scene.all_back()
            assert not scene.desk._watched
            # Whoever waited for it can go on.
            assert scene.freed == [{"scsi": False}]

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
