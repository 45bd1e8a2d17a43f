# SPDX-License-Identifier: Apache-2.0
"""Jobs over the life of a daemon: stopped with it, and taken up by the next one."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.daemon.whole import LIMIT, Bench
from tests.unit.fake_jobs import Work, job_request
from tests.unit.fakes import BOOT
from zoned.api.client import Client
from zoned.api.types import JobInfo
from zoned.daemon import service as service_module
from zoned.daemon.connection import Transport
from zoned.daemon.server import Server
from zoned.engine.engine import Engine
from zoned.engine.jobs.book import JobBook
from zoned.errors import NoDaemon, StateDamaged, TryLater
from zoned.model.job import JobKind, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.model.job import JobRequest


class Jobbing:
    """Stands in for what jobs do."""

    def __init__(self, whole: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole = whole
        self.work: Body = Work()
        self.engines: list[Engine] = []

        def prepare(
            engine: Engine, _: JobKind, given: Mapping[str, Any]
        ) -> tuple[JobRequest, Body]:
            return job_request(given["name"]), self.work

        def bodies(engine: Engine) -> Mapping[JobKind, Callable[[JobRequest], Body]]:
            self.engines.append(engine)
            return {JobKind.MIGRATE: lambda _: self.work}

        monkeypatch.setattr(Engine, "prepare", prepare)
        monkeypatch.setattr(Engine, "bodies", bodies)

    def book(self) -> JobBook:
        """Return the jobs as the next daemon will find them."""
        return JobBook(self.whole.options.state or self.whole.folder, BOOT)


@pytest.fixture
def jobbing(whole: Bench, monkeypatch: pytest.MonkeyPatch) -> Jobbing:
    monkeypatch.setattr(service_module, "boot_id", lambda _: BOOT)
    return Jobbing(whole, monkeypatch)


def last(states: Iterator[Any]) -> Any:
    """Return the last of what is told."""
    *_, found = states
    return found


def test_a_job_goes_on_where_the_last_daemon_left_it(
    whole: Bench, jobbing: Jobbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted: list[Transport] = []
    monkeypatch.setattr(Transport, "abort", aborted.append)

    def first() -> None:
        with Client(whole.socket) as client, Client(whole.socket) as other:
            client.call("Zones.Move", JobInfo, name="db", nodes="1")
            states = client.stream("Jobs.Watch", JobInfo, id=1)
            assert next(states).state == "running"
            assert other.call("Jobs.Pause", JobInfo, id=1).state == "paused"
            whole.end()
            with pytest.raises(NoDaemon):
                last(states)

    whole.run(first)
    whole.told("STOPPING=1")
    assert aborted == []
    (record,) = jobbing.book().resumable()
    assert record.job.state is JobState.PAUSED

    def second() -> None:
        assert isinstance(jobbing.work, Work)
        assert jobbing.engines[-1].jobs is not None
        with Client(whole.socket) as client:
            assert client.call("Jobs.Show", JobInfo, id=1).state == "paused"
            assert client.call("Jobs.Resume", JobInfo, id=1).state == "running"
            jobbing.work.end()
            assert last(client.stream("Jobs.Watch", JobInfo, id=1)).state == "done"

    whole.run(second)
    assert len(jobbing.engines) == 2
    assert jobbing.book().resumable() == ()


def test_stopping_lets_jobs_finish_what_they_are_changing(
    whole: Bench, jobbing: Jobbing, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that waits for the thread that changes the machine gets its turn, then stops."""
    changing, stopping, changed = threading.Event(), threading.Event(), threading.Event()

    def change() -> None:
        changing.set()
        assert stopping.wait(LIMIT)
        changed.set()

    def work(control: JobControl) -> None:
        control.change(change)
        while True:
            control.change(lambda: None)
            control.wait(0.001)

    jobbing.work = work

    def body() -> None:
        with Client(whole.socket) as client:
            client.call("Zones.Move", JobInfo, name="db", nodes="1")
        assert changing.wait(LIMIT)
        whole.end()
        whole.told("STOPPING=1")
        stopping.set()

    whole.run(body)
    assert changed.is_set()
    assert "did not stop" not in caplog.text
    (record,) = jobbing.book().resumable()
    assert record.job.state is JobState.RUNNING


def test_jobs_are_stopped_where_the_daemon_cannot_begin(
    whole: Bench, jobbing: Jobbing, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobbing.book().open(job_request("db"), 0)

    def refuse(_: object) -> None:
        assert isinstance(jobbing.work, Work)
        assert jobbing.work.began.wait(LIMIT)
        raise TryLater("no socket today")

    monkeypatch.setattr(Server, "start", refuse)
    with pytest.raises(TryLater, match="no socket"):
        asyncio.run(service_module.Service(whole.options).run())
    assert isinstance(jobbing.work, Work)
    assert jobbing.work.tidied.is_set()
    assert len(jobbing.book().resumable()) == 1


def test_a_damaged_book_of_jobs_is_told(whole: Bench) -> None:
    book = whole.world.folder / "state/jobs.json"
    book.parent.mkdir()
    book.write_text("junk")
    with pytest.raises(StateDamaged, match=r"jobs\.json"):
        asyncio.run(service_module.Service(whole.options).run())
