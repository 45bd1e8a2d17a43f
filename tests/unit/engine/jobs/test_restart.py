# SPDX-License-Identifier: Apache-2.0
"""Jobs and the daemon's end: what is on disk, who waits for whom, and what goes on afterwards."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_jobs import LIMIT, MIB, Bench, job_request, until
from zoned.engine.jobs.book import JobBook
from zoned.errors import NoSuchProcess, TryLater
from zoned.model.job import JobKind, JobState
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from zoned.engine.jobs.control import Body, JobControl
    from zoned.model.job import JobRequest


def on_disk(bench: Bench) -> dict[int, str]:
    """Return the states as a daemon that begins now would read them."""
    data = json.loads((bench.folder / "jobs.json").read_text())
    return {job["id"]: job["state"] for job in data["jobs"]}


def test_a_job_is_on_disk_before_its_work_begins(bench: Bench) -> None:
    seen: list[dict[int, str]] = []
    number = bench.runner.start(job_request(), 0, lambda _: seen.append(on_disk(bench))).id
    bench.over(number)
    assert seen == [{number: "running"}]
    assert on_disk(bench) == {number: "done"}


def test_stopping_waits_for_the_work_and_leaves_its_record(bench: Bench) -> None:
    jobs = [bench.start() for _ in range(5)]
    for _, work in jobs[:4]:
        assert work.began.wait(LIMIT)
    bench.runner.pause(jobs[1][0])
    assert jobs[4][1].began.wait(LIMIT)
    waits, _ = bench.start()
    bench.runner.stop()
    assert all(work.tidied.is_set() for _, work in jobs)
    states = [bench.runner.get(number).state for number, _ in jobs]
    paused = JobState.PAUSED
    assert states == [JobState.RUNNING, paused, *[JobState.RUNNING] * 3]
    assert on_disk(bench) == {
        **{number: state.value for (number, _), state in zip(jobs, states, strict=True)},
        waits: "queued",
    }
    with pytest.raises(TryLater, match="stops"):
        bench.start()


def test_a_job_that_does_not_stop_is_not_waited_for(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    go, began = threading.Event(), threading.Event()

    def deaf(_: JobControl) -> None:
        began.set()
        assert go.wait(LIMIT)

    number = bench.runner.start(job_request(), 0, deaf).id
    assert began.wait(LIMIT)
    bench.runner.stop(0.01)
    assert f"job {number} did not stop" in caplog.text
    assert [each.daemon for each in threading.enumerate() if "job" in each.name] == [True]
    go.set()
    bench.over(number)


def test_a_cancelled_job_ends_even_while_all_stops(bench: Bench) -> None:
    number, _ = bench.started("db")
    bench.runner.cancel(number)
    bench.runner.stop()
    assert on_disk(bench) == {number: "cancelled"}


def test_what_was_unfinished_goes_on_after_a_restart(bench: Bench) -> None:
    number, work = bench.started("db")
    waits = [bench.start()[0] for _ in range(4)][-1]
    work.move()
    until(lambda: work.batches == 1)
    before = bench.runner.get(number)
    bench.runner.stop()
    for each in bench.works.values():
        each.began.clear()
    runner = bench.daemon()
    runner.resume_all()
    assert work.began.wait(LIMIT)
    found = runner.get(number)
    assert (found.state, found.started, found.created, found.request) == (
        JobState.RUNNING,
        before.started,
        before.created,
        before.request,
    )
    assert found.progress.outcomes == {}
    assert found.progress.notes == ("it went on after the daemon had been started anew",)
    assert (runner.get(waits).state, runner.get(waits).progress.notes) == (JobState.QUEUED, ())
    assert runner.busy_zones == {"db": number}
    work.move(2)
    work.end()
    assert bench.over(number).progress.outcomes == {Outcome.MOVED: 2 * MIB}
    assert bench.works[4].began.wait(LIMIT)
    assert bench.start()[0] == waits + 1


def test_a_daemon_that_was_killed_leaves_what_ran(bench: Bench) -> None:
    """Nothing is written at the end: the file says all that the next one needs."""
    number, work = bench.started("db")
    left = (bench.folder / "jobs.json").read_bytes()
    bench.runner.stop()
    (bench.folder / "jobs.json").write_bytes(left)
    work.began.clear()
    bench.daemon().resume_all()
    assert work.began.wait(LIMIT)
    assert bench.runner.get(number).state is JobState.RUNNING


def test_a_paused_job_stays_paused(bench: Bench) -> None:
    number, work = bench.started()
    bench.runner.pause(number)
    bench.runner.stop()
    work.began.clear()
    bench.daemon().resume_all()
    assert bench.runner.get(number).state is JobState.PAUSED
    assert bench.runner._entries[number].thread is None
    bench.runner.resume(number)
    assert work.began.wait(LIMIT)
    work.end()
    assert bench.over(number).state is JobState.DONE


def test_a_paused_job_is_cancelled_after_a_restart_and_tidies_up(bench: Bench) -> None:
    number, work = bench.started()
    bench.runner.pause(number)
    bench.runner.stop()
    work.tidied.clear()
    bench.daemon().resume_all()
    bench.runner.cancel(number)
    assert bench.over(number).state is JobState.CANCELLED
    assert work.tidied.is_set()


def test_what_was_being_cancelled_is_cancelled_after_a_restart(bench: Bench) -> None:
    number, work = bench.started()
    tidy = threading.Event()
    bench.runner._entries[number].control.cancel = tidy.set  # type: ignore[method-assign]
    bench.runner.cancel(number)
    assert tidy.is_set()
    bench.runner.stop()
    assert on_disk(bench) == {number: "running"}
    work.tidied.clear()
    bench.daemon().resume_all()
    assert bench.over(number).state is JobState.CANCELLED
    assert work.tidied.is_set()


def test_another_boot_ends_what_was_unfinished(bench: Bench) -> None:
    number, _ = bench.started("db")
    bench.runner.stop()
    bench.boot = "next boot"
    bench.daemon().resume_all()
    assert bench.runner.get(number).state is JobState.INTERRUPTED
    assert bench.runner.busy_zones == {}
    assert bench.runner.unfinished == ()


def test_a_job_that_makes_no_sense_any_more_is_interrupted(bench: Bench) -> None:
    def gone(request: JobRequest) -> Body:
        raise NoSuchProcess(f"process {request.parameters['pid']} ended", hint="so it is")

    book = JobBook(bench.folder, "boot")
    ended = book.open(job_request("db", pid=7), 0).id
    wrong = book.open(job_request("web", colour="red"), 0).id
    move = book.open(replace(job_request(), kind=JobKind.MOVE), 0).id
    bench.bodies = {JobKind.MIGRATE: gone}
    bench.daemon().resume_all()
    found = [bench.runner.get(number) for number in (ended, wrong, move)]
    assert {job.state for job in found} == {JobState.INTERRUPTED}
    assert [job.error and job.error.code for job in found] == ["no-such-process", "bug", "bug"]
    assert (found[0].error and found[0].error.message) == "process 7 ended"
    assert bench.runner.busy_zones == {}
    assert set(on_disk(bench).values()) == {"interrupted"}
