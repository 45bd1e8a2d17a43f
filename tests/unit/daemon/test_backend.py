# SPDX-License-Identifier: Apache-2.0
"""Each method asks for the right that it needs, and does its work in the right thread."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_jobs import LIMIT, Work, job_request
from tests.unit.fakes import BOOT, GIB, World, make_world, started
from zoned.api.types import ZoneRequest
from zoned.daemon import backend as backend_module
from zoned.daemon.backend import PeerBackend
from zoned.daemon.buffers import BufferDesk
from zoned.daemon.jobs import JobDesk
from zoned.daemon.peer import Peer
from zoned.daemon.worker import Worker
from zoned.engine.jobs.book import JobBook
from zoned.engine.jobs.runner import JobRunner
from zoned.errors import (
    BadSize,
    Denied,
    JobOver,
    NoSuchJob,
    NoSuchZone,
    TryLater,
    UsageError,
    ZoneBusy,
)
from zoned.model.job import JobKind
from zoned.model.migration import Survey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from zoned.engine.engine import Engine
    from zoned.engine.jobs.control import Body, JobControl
    from zoned.model.job import JobRequest

ROOT = Peer(pid=7, uid=0, gids=frozenset({0}))
JO = Peer(pid=7, uid=54321, gids=frozenset({54321}))

DB = ZoneRequest(name="db", size=GIB, users=["jo"])
LOOKING = {"status", "list", "show", "jobs", "job", "watch", "survey", "blocks", "base"}
LOOKING |= {"dma list", "dma check"}
ASKED_FOR = set(JobKind) - {JobKind.CREATE, JobKind.FILL, JobKind.GIVE_BACK}
KINDS = {f"job {kind}" for kind in ASKED_FOR}
EVERYTHING = (
    LOOKING
    | KINDS
    | {
        "reset",
        "reload",
        "dma reserve",
        "dma release",
        "dma prepare",
        "create",
        "start create",
        "resize",
        "enter",
        "pause",
        "resume",
        "cancel",
    }
)


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
def engine(world: World) -> Engine:
    return started(world)


@pytest.fixture
def runner(world: World, worker: Worker, engine: Engine) -> Iterator[JobRunner]:
    book = JobBook(world.folder / "state", BOOT)
    runner = engine.jobs = JobRunner(book, engine.bodies(), worker.change_and_wait)
    yield runner
    runner.stop()


@pytest.fixture
def backend_for(engine: Engine, worker: Worker, runner: JobRunner) -> Callable[[Peer], PeerBackend]:
    buffers = BufferDesk(engine.machine, worker)
    return lambda peer: PeerBackend(engine, worker, JobDesk(runner), buffers, peer)


class Asked:
    """Stands in for how the engine judges what jobs are asked to do."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kinds: list[tuple[JobKind, Mapping[str, Any]]] = []
        self.threads: set[str] = set()
        self.work: Body = Work()
        monkeypatch.setattr(engine, "prepare", self.prepare)
        monkeypatch.setattr(engine, "survey", self.survey)

    def prepare(self, kind: JobKind, parameters: Mapping[str, Any]) -> tuple[JobRequest, Body]:
        self._note(kind, parameters)
        return job_request("db", what=kind.value, **parameters), self.work

    def survey(self, kind: JobKind, parameters: Mapping[str, Any]) -> tuple[str, Survey]:
        self._note(kind, parameters)
        return f"{kind.value} it", Survey(processes=3)

    def _note(self, kind: JobKind, parameters: Mapping[str, Any]) -> None:
        self.kinds.append((kind, parameters))
        self.threads.add(threading.current_thread().name.rpartition("_")[0])


@pytest.fixture
def asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(engine, monkeypatch)


def test_the_life_of_a_zone(world: World, backend_for: Callable[[Peer], PeerBackend]) -> None:
    async def live() -> None:
        backend = backend_for(ROOT)
        assert (await backend.create(DB)).users == ["jo"]
        assert [zone.name for zone in await backend.list_zones()] == ["db"]
        assert (await backend.resize("db", 2 * GIB)).size == 2 * GIB
        await backend.enter("db")
        assert (await backend.show("db")).members == 1
        assert (await backend.status()).zones == 1
        await backend.reload()
        with pytest.raises(BadSize):
            await backend.resize("db", 1)
        await backend.create(replace(DB, name="web"))
        assert await backend.reset() == []
        assert not world.groups.pids("db")
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
        "create": backend.create(DB),
        "start create": backend.start_create(DB),
        "blocks": backend.held_blocks(),
        "base": backend.list_base(),
        "resize": backend.resize("db", GIB),
        "enter": backend.enter("db"),
        "jobs": backend.list_jobs(),
        "job": backend.show_job(9),
        "watch": anext(backend.watch_job(9)),
        "survey": backend.survey("attach", name="db", pid=7),
        "dma list": backend.dma_list(),
        "dma check": backend.dma_check(),
        "dma reserve": backend.dma_reserve(device="x", size=1, name=None, limit=None, rungs=None),
        "dma release": backend.dma_release("x"),
        "dma prepare": backend.dma_prepare("x"),
        "pause": backend.pause_job(9),
        "resume": backend.resume_job(9),
        "cancel": backend.cancel_job(9),
        **{f"job {kind}": backend.start_job(kind, name="db", pid=7) for kind in ASKED_FOR},
    }


async def denied(backend: PeerBackend) -> set[str]:
    found = set()
    for name, call in calls(backend).items():
        try:
            await call
        except Denied:
            found.add(name)
        except (NoSuchZone, NoSuchJob):
            continue
    return found


def test_a_stranger_may_do_nothing_and_changes_nothing(
    world: World, backend_for: Callable[[Peer], PeerBackend], asked: Asked
) -> None:
    async def try_all() -> None:
        assert await denied(backend_for(JO)) == EVERYTHING
        assert not world.groups.made
        assert not asked.kinds

    asyncio.run(try_all())


def test_a_reader_may_look(
    backend_for: Callable[[Peer], PeerBackend], monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    monkeypatch.setattr("zoned.daemon.peer._group_id", lambda _: 54321)

    async def try_all() -> None:
        assert await denied(backend_for(JO)) == EVERYTHING - LOOKING
        assert [kind for kind, _ in asked.kinds] == [JobKind.ATTACH]

    asyncio.run(try_all())


def test_one_whom_the_zone_names_may_enter(
    world: World,
    backend_for: Callable[[Peer], PeerBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Peer, "user", property(lambda self: "jo" if self.uid else "root"))

    async def enter() -> None:
        await backend_for(ROOT).create(DB)
        await backend_for(JO).enter("db")
        assert world.groups.pids("db") == (7,)
        with pytest.raises(Denied):
            await backend_for(JO).resize("db", 2 * GIB)

    asyncio.run(enter())


def test_the_life_of_a_job(backend_for: Callable[[Peer], PeerBackend], asked: Asked) -> None:
    work = Work()
    asked.work = work

    async def live() -> None:
        backend = backend_for(ROOT)
        job = await backend.start_job(JobKind.ATTACH, name="db", pid=7, unit=None, stall=2.5)
        assert (job.id, job.kind, job.what) == (1, "migrate", "attach")
        assert asked.kinds == [(JobKind.ATTACH, {"name": "db", "pid": 7, "stall": 2.5})]
        assert asked.threads == {"zoned-writer"}
        with pytest.raises(ZoneBusy):
            await backend.start_job(JobKind.MOVE, name="db", nodes="1")
        assert (await backend.pause_job(1)).state == "paused"
        assert (await backend.resume_job(1)).state == "running"
        assert [each.id for each in await backend.list_jobs()] == [1]
        await backend.cancel_job(1)
        told = [each async for each in backend.watch_job(1)]
        assert [(info.state, continues) for info, continues in told][-1] == ("cancelled", False)
        assert (await backend.show_job(1)).state == "cancelled"
        with pytest.raises(JobOver):
            await backend.cancel_job(1)

    asyncio.run(live())


def test_jobs_can_be_told_while_the_machine_is_being_changed(
    backend_for: Callable[[Peer], PeerBackend], worker: Worker, asked: Asked
) -> None:
    begun, go = threading.Event(), threading.Event()

    def long_change() -> None:
        begun.set()
        assert go.wait(LIMIT)

    async def tell() -> None:
        backend = backend_for(ROOT)
        await backend.start_job(JobKind.MOVE, name="db")
        busy = asyncio.create_task(worker.change(long_change))
        assert await worker.look(lambda: begun.wait(LIMIT))
        assert (await backend.pause_job(1)).state == "paused"
        await backend.cancel_job(1)
        assert [each async for each in backend.watch_job(1)][-1][0].state == "cancelled"
        go.set()
        await busy

    asyncio.run(tell())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused(
    backend_for: Callable[[Peer], PeerBackend], asked: Asked, value: float
) -> None:
    async def start() -> None:
        with pytest.raises(UsageError, match="rate"):
            await backend_for(ROOT).start_job(JobKind.MOVE, name="db", rate=value)
        with pytest.raises(UsageError, match="stall"):
            await backend_for(ROOT).survey("move", name="db", stall=value)
        assert not asked.kinds

    asyncio.run(start())


def test_a_look_ahead(backend_for: Callable[[Peer], PeerBackend], asked: Asked) -> None:
    async def look() -> None:
        backend = backend_for(ROOT)
        found = await backend.survey("move", name="db", nodes="1", pid=None)
        assert (found.what, found.processes, found.fits) == ("move it", 3, True)
        assert asked.kinds == [(JobKind.MOVE, {"name": "db", "nodes": "1"})]
        assert asked.threads == {"zoned-reader"}
        for kind in ("destroy", "detach", "dance", ""):
            with pytest.raises(UsageError, match="nothing tells"):
                await backend.survey(kind, name="db")

    asyncio.run(look())


def test_a_reset_ends_all_jobs_first(
    backend_for: Callable[[Peer], PeerBackend],
    engine: Engine,
    runner: JobRunner,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, ...]] = []
    reset = engine.reset

    def watched() -> list[str]:
        seen.append(runner.unfinished)
        return reset()

    def body(control: JobControl) -> None:
        try:
            control.wait(1000)
        finally:
            # The job tidies up in the very thread that the reset will need.
            control.change(lambda: seen.append((99,)))

    monkeypatch.setattr(engine, "reset", watched)
    asked.work = body

    async def start() -> None:
        backend = backend_for(ROOT)
        await backend.start_job(JobKind.MOVE, name="db")
        assert await backend.reset() == []
        assert seen == [(99,), ()]
        assert (await backend.show_job(1)).state == "cancelled"

    asyncio.run(start())


def test_a_reset_that_a_job_stands_in_the_way_of(
    backend_for: Callable[[Peer], PeerBackend],
    engine: Engine,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "LAST_JOBS", 0.01)
    monkeypatch.setattr(engine, "reset", lambda: pytest.fail("it was reset all the same"))
    go = threading.Event()
    asked.work = lambda _: None if go.wait(LIMIT) else pytest.fail("too late")

    async def start() -> None:
        backend = backend_for(ROOT)
        await backend.start_job(JobKind.MOVE, name="db")
        with pytest.raises(TryLater, match="do not end: 1"):
            await backend.reset()
        go.set()
        assert [each async for each in backend.watch_job(1)][-1][0].state == "done"

    asyncio.run(start())
