# SPDX-License-Identifier: Apache-2.0
"""zonectl as its users run it, with a real daemon's socket and an engine on a fake machine."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.fake_client import FakeDaemon
from tests.unit.fakes import FakeUnits, World, make_world, started
from zoned.cli import main as main_module
from zoned.daemon.backend import PeerBackend
from zoned.daemon.buffers import BufferDesk
from zoned.daemon.jobs import JobDesk
from zoned.daemon.server import Server
from zoned.daemon.worker import Worker
from zoned.engine.jobs.book import JobBook
from zoned.engine.jobs.runner import JobRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zoned.engine.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


@dataclass(slots=True, kw_only=True)
class Daemon:
    """A daemon in a thread, and zonectl for it."""

    world: World
    engine: Engine
    socket: Path
    run: Callable[..., Ran]

    def zonectl(self, *arguments: str) -> Ran:
        """Run zonectl with these arguments."""
        return self.run("--socket", str(self.socket), *arguments)

    def well(self, *arguments: str) -> str:
        """Run zonectl, which must succeed; return what it prints."""
        found = self.zonectl(*arguments)
        assert (found.status, found.err) == (0, "")
        return found.out


@pytest.fixture
def zonectl(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Return what runs zonectl in this process."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["zonectl", *arguments])
        capsys.readouterr()
        try:
            main_module.main()
            status: object = 0
        except SystemExit as ended:
            status = ended.code
        printed = capsys.readouterr()
        assert isinstance(status, int)
        return Ran(status=status, out=printed.out, err=printed.err)

    return run


@pytest.fixture
def daemon(tmp_path: Path, zonectl: Callable[..., Ran]) -> Iterator[Daemon]:
    """Return a daemon on a machine with two nodes of 4 GiB and one service that runs."""
    world = make_world(tmp_path, units=FakeUnits({"web.service": "/system/web"}))
    world.add_process(os.getpid(), "/user/tests")
    engine, worker = started(world), Worker()
    socket = tmp_path / "socket"
    loop = asyncio.new_event_loop()
    book = JobBook(tmp_path / "state", "boot")
    runner = engine.jobs = JobRunner(book, engine.bodies(), worker.change_and_wait)
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        desk = JobDesk(runner)
        buffers = BufferDesk(engine.machine, worker)
        backend = functools.partial(PeerBackend, engine, worker, desk, buffers)
        server = Server(socket, backend)
        await buffers.start()
        server.start()
        ready.set()
        await stop.wait()
        desk.stop()
        await asyncio.to_thread(runner.stop)
        await server.stop()
        await buffers.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20)
    yield Daemon(world=world, engine=engine, socket=socket, run=zonectl)
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    worker.stop()
    loop.close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    """Return the script of a daemon that zonectl talks to in place of any other."""
    scripted, before = FakeDaemon(), set(threading.enumerate())
    monkeypatch.setattr("zoned.api.client.Client", scripted.client)
    yield scripted
    scripted.over.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()
