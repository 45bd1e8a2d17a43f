# SPDX-License-Identifier: Apache-2.0
"""Each method asks for the right that it needs, and does its work in the right thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fakes import GIB, World, make_world, started
from zoned.daemon.backend import PeerBackend
from zoned.daemon.peer import Peer
from zoned.daemon.worker import Worker
from zoned.errors import BadSize, Denied, NoSuchZone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

ROOT = Peer(pid=7, uid=0, gids=frozenset({0}))
JO = Peer(pid=7, uid=54321, gids=frozenset({54321}))

CREATE: dict[str, Any] = {
    "nodes": None,
    "near": None,
    "backing": None,
    "cpus": None,
    "exclusive_cpus": None,
    "swap": None,
    "users": ["jo"],
}
LOOKING = {"status", "list", "show"}
EVERYTHING = LOOKING | {
    "reset",
    "reload",
    "create",
    "resize",
    "destroy",
    "attach",
    "detach",
    "enter",
}
WHO: dict[str, Any] = {"pid": 7, "unit": None, "cgroup": None}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    world.add_process(7, "/user")
    return world


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.stop()


@pytest.fixture
def backend_for(world: World, worker: Worker) -> Callable[[Peer], PeerBackend]:
    engine = started(world)
    return lambda peer: PeerBackend(engine, worker, peer)


def test_the_life_of_a_zone(world: World, backend_for: Callable[[Peer], PeerBackend]) -> None:
    async def live() -> None:
        backend = backend_for(ROOT)
        assert (await backend.create("db", GIB, **CREATE)).users == ["jo"]
        assert [zone.name for zone in await backend.list_zones()] == ["db"]
        assert (await backend.resize("db", 2 * GIB)).size == 2 * GIB
        await backend.enter("db")
        assert (await backend.show("db")).members == 1
        assert (await backend.detach("db", **WHO)).processes == 1
        assert (await backend.attach("db", **WHO)).processes == 1
        assert (await backend.status()).zones == 1
        await backend.reload()
        with pytest.raises(BadSize):
            await backend.resize("db", 1)
        await backend.destroy("db", drain="root", kill=None)
        assert world.groups.where[7] == "/user"
        await backend.create("web", GIB, **CREATE)
        assert await backend.reset() == []
        with pytest.raises(NoSuchZone):
            await backend.show("web")

    asyncio.run(live())


def calls(backend: PeerBackend) -> dict[str, Awaitable[object]]:
    return {
        "status": backend.status(),
        "list": backend.list_zones(),
        "show": backend.show("db"),
        "reset": backend.reset(),
        "reload": backend.reload(),
        "create": backend.create("db", GIB, **CREATE),
        "resize": backend.resize("db", GIB),
        "destroy": backend.destroy("db", drain=None, kill=True),
        "attach": backend.attach("db", **WHO),
        "detach": backend.detach("db", **WHO),
        "enter": backend.enter("db"),
    }


async def denied(backend: PeerBackend) -> set[str]:
    found = set()
    for name, call in calls(backend).items():
        try:
            await call
        except Denied:
            found.add(name)
        except NoSuchZone:
            continue
    return found


def test_a_stranger_may_do_nothing_and_changes_nothing(
    world: World, backend_for: Callable[[Peer], PeerBackend]
) -> None:
    async def try_all() -> None:
        assert await denied(backend_for(JO)) == EVERYTHING
        assert not world.groups.made

    asyncio.run(try_all())


def test_a_reader_may_look(
    backend_for: Callable[[Peer], PeerBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned.daemon.peer._group_id", lambda _: 54321)

    async def try_all() -> None:
        assert await denied(backend_for(JO)) == EVERYTHING - LOOKING

    asyncio.run(try_all())


def test_one_whom_the_zone_names_may_enter(
    world: World,
    backend_for: Callable[[Peer], PeerBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Peer, "user", property(lambda self: "jo" if self.uid else "root"))

    async def enter() -> None:
        await backend_for(ROOT).create("db", GIB, **CREATE)
        await backend_for(JO).enter("db")
        assert world.groups.pids("db") == (7,)
        with pytest.raises(Denied):
            await backend_for(JO).destroy("db", drain="root", kill=None)

    asyncio.run(enter())


def test_changes_run_one_after_the_other_and_looks_beside_them(worker: Worker) -> None:
    begun, go = threading.Event(), threading.Event()
    order: list[str] = []

    def long_change() -> str:
        begun.set()
        assert go.wait(20)
        order.append("first")
        return threading.current_thread().name

    def next_change() -> str:
        order.append("second")
        return threading.current_thread().name

    async def both() -> None:
        first = asyncio.create_task(worker.change(long_change))
        second = asyncio.create_task(worker.change(next_change))
        assert await worker.look(begun.wait)
        assert await worker.look(lambda: "seen") == "seen"
        assert order == []
        go.set()
        assert await first == await second != threading.current_thread().name
        assert order == ["first", "second"]

    asyncio.run(both())


def test_a_caller_that_goes_away_does_not_stop_a_change(worker: Worker) -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def change() -> None:
        begun.set()
        assert go.wait(20)
        done.set()

    async def leave() -> None:
        call = asyncio.create_task(worker.change(change))
        await worker.look(begun.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go.set()
        assert await worker.look(lambda: done.wait(20))

    asyncio.run(leave())
