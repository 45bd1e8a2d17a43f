# SPDX-License-Identifier: Apache-2.0
"""Following a job over the socket, and all the ways in which a follower goes away."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.daemon.talk import LIMIT, Bench, Talk, run
from tests.unit.fake_jobs import Bench as Jobs
from tests.unit.fake_jobs import job_request
from zoned.daemon import connection as connection_module
from zoned.daemon import jobs as jobs_module
from zoned.daemon.jobs import JobDesk
from zoned.model.job import JobState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    Serve = Callable[[Callable[["Watching"], Awaitable[None]]], list[str]]

EMPTY: dict[str, Any] = {"parameters": {"zones": []}}


class Watching:
    """A server, jobs, and the desk between them."""

    def __init__(self, bench: Bench, jobs: Jobs) -> None:
        self.bench = bench
        self.jobs = jobs
        self.desk = JobDesk(jobs.runner)
        bench.backend.watch_job = self.desk.watch  # type: ignore[attr-defined]

    async def watcher(self, number: int, **how: bool) -> Talk:
        """Return a client that has asked to follow the job."""
        talk = await self.bench.talk()
        await watch(talk, number, **how)
        return talk

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = asyncio.get_running_loop().time() + LIMIT
        while not condition():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.001)

    async def let_go(self) -> None:
        """Wait until nobody follows any more, and the server has no connection left."""
        await self.until(lambda: not self.desk._following and not self.bench.server._open)


async def watch(talk: Talk, number: int, **how: bool) -> None:
    call = {"method": "io.zoned.Jobs.Watch", "parameters": {"id": number}, **how}
    await talk.send(json.dumps(call).encode() + b"\0")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path)
    yield jobs
    jobs.close()


@pytest.fixture
def serve(tmp_path: Path, jobs: Jobs, caplog: pytest.LogCaptureFixture) -> Serve:
    """Return what runs a test's body beside a server; it returns what was logged as wrong."""

    def start(body: Callable[[Watching], Awaitable[None]]) -> list[str]:
        async def with_desk(bench: Bench) -> None:
            watching = Watching(bench, jobs)
            try:
                await body(watching)
            finally:
                watching.desk.stop()

        run(tmp_path, with_desk)
        wrong = [each for each in caplog.records if each.levelno >= logging.WARNING]
        return [each.getMessage() for each in wrong]

    return start


async def states(talk: Talk) -> list[tuple[str, bool]]:
    """Return all that is told up to the last."""
    found: list[tuple[str, bool]] = []
    while not found or found[-1][1]:
        reply: dict[str, Any] = await talk.reply()
        found.append((reply["parameters"]["job"]["state"], reply.get("continues", False)))
    return found


def test_a_job_is_followed_to_its_end_and_the_connection_goes_on(serve: Serve) -> None:
    async def body(watching: Watching) -> None:
        number, work = watching.jobs.started()
        talk = await watching.watcher(number, more=True)
        first = await talk.reply()
        assert first["continues"] is True
        assert first["parameters"]["job"]["id"] == number
        work.move()
        work.end()
        found = await states(talk)
        assert found[-1] == ("done", False)
        assert {state for state, _ in found[:-1]} <= {"running"}
        assert await talk.ask("Zones.List") == EMPTY
        await watch(talk, number, more=True)
        assert await states(talk) == [("done", False)]

    assert serve(body) == []


def test_without_more_only_the_end_is_told(serve: Serve) -> None:
    async def body(watching: Watching) -> None:
        number, work = watching.jobs.started()
        talk, beside = await watching.watcher(number), await watching.watcher(number, more=True)
        for _ in range(2):
            await beside.reply()
            watching.jobs.runner.pause(number)
        watching.jobs.runner.resume(number)
        work.end()
        assert await states(talk) == [("done", False)]
        assert await talk.ask("Zones.List") == EMPTY
        await watch(talk, number, more=True)
        assert await states(talk) == [("done", False)]

    assert serve(body) == []


@pytest.mark.parametrize("more", [True, False])
def test_no_such_job(serve: Serve, *, more: bool) -> None:
    async def body(watching: Watching) -> None:
        talk = await watching.watcher(5, more=more)
        assert await talk.code() == "no-such-job"
        call = {"method": "io.zoned.Jobs.Watch", "parameters": {"id": "x"}, "more": more}
        await talk.send(json.dumps(call).encode() + b"\0")
        assert (await talk.reply())["error"] == "org.varlink.service.InvalidParameter"
        assert await talk.ask("Zones.List") == EMPTY

    assert serve(body) == []


@pytest.mark.parametrize("more", [True, False])
def test_who_wants_no_answer_gets_none(serve: Serve, *, more: bool) -> None:
    async def body(watching: Watching) -> None:
        number, _ = watching.jobs.started()
        talk = await watching.watcher(number, more=more, oneway=True)
        assert await talk.ask("Zones.List") == EMPTY

    assert serve(body) == []


@pytest.mark.parametrize("unread", [True, False])
def test_a_follower_that_goes_away_is_let_go_and_the_job_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, *, unread: bool
) -> None:
    monkeypatch.setattr(jobs_module, "LEAST", 0)

    async def body(watching: Watching) -> None:
        number, work = watching.jobs.started()
        talk = await watching.watcher(number, more=True)
        await talk.reply()
        if unread:
            # What lies unread makes the kernel tell of a reset instead of a broken pipe.
            talk.reader._transport.pause_reading()  # type: ignore[attr-defined]
            for turn in ("pause", "resume") * 3:
                getattr(watching.jobs.runner, turn)(number)
                await asyncio.sleep(0.002)
        talk.writer.transport.abort()
        work.move()
        await watching.until(lambda: work.batches)
        watching.jobs.runner.pause(number)
        await watching.let_go()
        assert watching.jobs.runner.get(number).state is JobState.PAUSED

    assert serve(body) == []


def test_a_follower_of_the_end_that_goes_away_is_let_go(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "SIGN_OF_LIFE", 0.01)
    monkeypatch.setattr(jobs_module, "LOOK", 0.001)

    async def body(watching: Watching) -> None:
        number, _ = watching.jobs.started()
        talk = await watching.watcher(number)
        await watching.until(lambda: watching.desk._following)
        talk.writer.transport.abort()
        await watching.let_go()
        assert watching.jobs.runner.get(number).state is JobState.RUNNING

    assert serve(body) == []


@pytest.mark.parametrize("more", [True, False])
def test_a_follower_that_only_closes_its_side_hears_the_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, *, more: bool
) -> None:
    monkeypatch.setattr(jobs_module, "SIGN_OF_LIFE", 0.01)
    monkeypatch.setattr(jobs_module, "LOOK", 0.001)

    async def body(watching: Watching) -> None:
        number, work = watching.jobs.started()
        talk = await watching.watcher(number, more=more)
        talk.writer.write_eof()
        if more:
            for _ in range(3):
                await talk.reply()
        work.end()
        assert (await states(talk))[-1] == ("done", False)
        assert await talk.ended()

    assert serve(body) == []


def test_a_follower_that_does_not_read_is_cut_off_and_the_job_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "UNTAKEN", 0.05)
    monkeypatch.setattr(jobs_module, "LEAST", 0)
    monkeypatch.setattr(jobs_module, "SIGN_OF_LIFE", 0)
    monkeypatch.setattr(jobs_module, "LOOK", 0.0001)

    async def body(watching: Watching) -> None:
        def wait(control: Any) -> None:
            control.wait(1000)

        request = job_request(what="x" * 100_000)
        number = watching.jobs.runner.start(request, 0, wait).id
        talk = await watching.watcher(number, more=True)
        talk.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await watching.let_go()
        assert watching.jobs.runner.get(number).state is JobState.RUNNING

    assert serve(body) == ["a client that follows a job does not read what it is told"]


@pytest.mark.parametrize("more", [True, False])
def test_when_the_daemon_stops_the_connection_breaks_without_a_last_word(
    serve: Serve, *, more: bool
) -> None:
    async def body(watching: Watching) -> None:
        number, _ = watching.jobs.started()
        talk = await watching.watcher(number, more=more)
        if more:
            assert (await talk.reply())["continues"]
        await watching.until(lambda: watching.desk._following)
        watching.desk.stop()
        assert await talk.ended()

    assert serve(body) == []


def test_a_follower_is_never_idle(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "IDLE", 0.01)

    async def body(watching: Watching) -> None:
        number, work = watching.jobs.started()
        follows, idle = await watching.watcher(number, more=True), await watching.bench.talk()
        waits = await watching.watcher(number)
        await follows.reply()
        assert await idle.ended()
        work.end()
        assert (await states(follows))[-1] == ("done", False)
        assert await states(waits) == [("done", False)]

    assert serve(body) == []
