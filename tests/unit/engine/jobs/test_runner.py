# SPDX-License-Identifier: Apache-2.0
"""Jobs in their threads: how they end, who may run beside whom, and what they can be told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_jobs import LIMIT, MIB, Bench, Work, job_request, until
from zoned.engine.jobs import runner as runner_module
from zoned.errors import (
    JobOver,
    MachineError,
    NoCapacity,
    NoSuchJob,
    Partial,
    TryLater,
    ZoneBusy,
    ZonedError,
)
from zoned.model.job import JobError, JobState
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.engine.jobs.control import JobControl
    from zoned.model.job import Job


def test_a_job_from_beginning_to_end(bench: Bench) -> None:
    number, work = bench.started("db")
    running = bench.runner.get(number)
    assert (running.state, running.uid, running.ended) == (JobState.RUNNING, 0, None)
    assert running.started is not None
    assert running.created <= running.started
    assert (running.request.zones, bench.runner.unfinished) == (("db",), (number,))
    work.move(3)
    until(lambda: bench.runner.get(number).progress.outcomes == {Outcome.MOVED: 3 * MIB})
    work.end()
    done = bench.over(number)
    assert (done.state, done.error, done.rate) == (JobState.DONE, None, None)
    assert done.progress.outcomes == {Outcome.MOVED: 3 * MIB}
    assert done.ended is not None
    assert done.ended >= running.started
    assert bench.runner.unfinished == ()
    assert bench.runner.list() == (done,)


@pytest.mark.parametrize(
    ("error", "state", "told"),
    [
        (NoCapacity("no room", hint="free some"), JobState.FAILED, ("no-capacity", "no room")),
        (Partial("1 MiB is left"), JobState.PARTIAL, ("partial", "1 MiB is left")),
        (KeyError("oops"), JobState.FAILED, ("bug", "KeyError: 'oops'")),
    ],
)
def test_how_a_job_fails(
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    state: JobState,
    told: tuple[str, str],
) -> None:
    number, work = bench.started()
    work.fail(error)
    found = bench.over(number)
    assert found.state is state
    assert found.error is not None
    assert (found.error.code, found.error.message) == told
    hint = error.hint if isinstance(error, ZonedError) else "see the daemon's log, and report it"
    assert found.error.hint == hint
    assert ("Traceback" in caplog.text) is not isinstance(error, ZonedError)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.BUSY, JobState.PARTIAL),
        (Outcome.PINNED, JobState.PARTIAL),
        (Outcome.THERE, JobState.DONE),
        (Outcome.GONE, JobState.DONE),
    ],
)
def test_what_is_left_behind_makes_it_partial(
    bench: Bench, outcome: Outcome, state: JobState
) -> None:
    number = bench.runner.start(job_request(), 0, lambda job: job.count(outcome, 1)).id
    assert bench.over(number).state is state


def test_a_pause_holds_the_work_between_batches_and_resuming_lets_it_go_on(bench: Bench) -> None:
    number, work = bench.started()
    work.move()
    until(lambda: work.batches == 1)
    assert bench.runner.pause(number).state is JobState.PAUSED
    control = work.control
    assert control is not None
    until(lambda: control._wake._waiters)  # type: ignore[attr-defined]
    work.move(5)
    assert (work.batches, bench.runner.get(number).rate) == (1, None)
    assert bench.runner.pause(number).state is JobState.PAUSED
    assert bench.runner.resume(number).state is JobState.RUNNING
    until(lambda: work.batches == 6)
    assert bench.runner.resume(number).state is JobState.RUNNING
    work.end()
    assert bench.over(number).state is JobState.DONE


def test_a_running_job_is_cancelled_and_tidies_up(bench: Bench) -> None:
    number, work = bench.started("db")
    tidying, tidy = threading.Event(), threading.Event()

    def body(control: JobControl) -> None:
        try:
            work(control)
        finally:
            tidying.set()
            assert tidy.wait(LIMIT)
            control.note("tidied up")

    work.end()
    bench.over(number)
    number = bench.runner.start(job_request("db"), 0, body).id
    assert bench.runner.cancel(number).state is JobState.RUNNING
    assert tidying.wait(LIMIT)
    assert bench.runner.busy_zones == {"db": number}
    assert bench.runner.pause(number).state is JobState.RUNNING
    assert bench.runner.cancel(number).state is JobState.RUNNING
    tidy.set()
    found = bench.over(number)
    assert (found.state, found.error) == (JobState.CANCELLED, None)
    assert found.progress.notes == ("tidied up",)
    assert bench.runner.busy_zones == {}


def test_a_paused_job_is_cancelled(bench: Bench) -> None:
    number, work = bench.started()
    bench.runner.pause(number)
    bench.runner.cancel(number)
    assert bench.over(number).state is JobState.CANCELLED
    assert work.tidied.is_set()


def test_tidying_up_can_fail(bench: Bench) -> None:
    def body(control: JobControl) -> None:
        try:
            control.wait(1000)
        finally:
            raise MachineError("the zone stays wide")

    number = bench.runner.start(job_request(), 0, body).id
    bench.runner.cancel(number)
    found = bench.over(number)
    assert found.state is JobState.FAILED
    assert found.error == JobError(code="machine", message="the zone stays wide")


def test_four_run_at_once_and_the_others_in_order(bench: Bench) -> None:
    jobs = [bench.start() for _ in range(7)]
    states = [bench.runner.get(number).state for number, _ in jobs]
    assert states == [JobState.RUNNING] * 4 + [JobState.QUEUED] * 3
    shown = [job.progress.phase for job in bench.runner.list()]
    assert shown == [""] * 4 + ["waiting for one of the jobs 1-4 to end"] * 3
    assert bench.runner.get(5).progress.phase == shown[4]
    assert jobs[0][1].began.wait(LIMIT)
    assert jobs[0][1].control is not None
    assert jobs[0][1].control.name == "job 1 (test)"
    for ends, begins in ((2, 4), (0, 5), (4, 6)):
        assert not jobs[begins][1].began.is_set()
        jobs[ends][1].end()
        assert jobs[begins][1].began.wait(LIMIT)
        assert bench.over(jobs[ends][0]).state is JobState.DONE
    running = [job.id for job in bench.runner.list() if job.state is JobState.RUNNING]
    assert running == [jobs[each][0] for each in (1, 3, 5, 6)]


def test_a_paused_job_makes_room_and_waits_for_room_again(bench: Bench) -> None:
    jobs = [bench.start() for _ in range(5)]
    (first, work), (last, other) = jobs[0], jobs[-1]
    assert bench.runner.get(last).state is JobState.QUEUED
    bench.runner.pause(first)
    assert other.began.wait(LIMIT)
    assert bench.runner.resume(first).state is JobState.QUEUED
    work.move()
    jobs[1][1].end()
    until(lambda: work.batches == 1)
    assert bench.runner.get(first).state is JobState.RUNNING


def test_what_waits_can_be_paused_and_cancelled(bench: Bench) -> None:
    jobs = [bench.start() for _ in range(7)]
    (fifth, fifth_work), (sixth, sixth_work), (seventh, seventh_work) = jobs[4:]
    assert bench.runner.pause(fifth).state is JobState.PAUSED
    found = bench.runner.cancel(sixth)
    assert (found.state, found.started) == (JobState.CANCELLED, None)
    assert found.ended is not None
    jobs[0][1].end()
    assert seventh_work.began.wait(LIMIT)
    assert bench.runner.resume(fifth).state is JobState.QUEUED
    jobs[1][1].end()
    assert fifth_work.began.wait(LIMIT)
    assert not sixth_work.began.is_set()
    assert bench.runner.get(seventh).state is JobState.RUNNING


def test_a_zone_has_one_job_even_if_that_one_waits(bench: Bench) -> None:
    for _ in range(4):
        bench.start()
    holder, _ = bench.start("db", "web")
    for zones in (("db",), ("new", "web")):
        with pytest.raises(ZoneBusy, match=f"job {holder} works on zone {zones[-1]}") as error:
            bench.start(*zones)
        assert f"zonectl job {holder} cancel" in error.value.hint
    assert bench.runner.busy_zones == {"db": holder, "web": holder}
    with pytest.raises(ZoneBusy):
        bench.runner.refuse_busy("web")
    bench.runner.refuse_busy("other")
    bench.runner.cancel(holder)
    bench.runner.refuse_busy("web")
    assert len(bench.runner.list()) == 5
    bench.start("db")


def test_a_job_that_failed_lets_go_of_its_zone(bench: Bench) -> None:
    number, work = bench.started("db")
    work.fail(KeyError("oops"))
    bench.over(number)
    bench.start("db")


@pytest.mark.parametrize("order", ["pause", "resume", "cancel"])
def test_only_jobs_that_are_not_over_can_be_told(bench: Bench, order: str) -> None:
    tell: Callable[[int], object] = getattr(bench.runner, order)
    for number in (0, -1, 99, 1 << 70):
        with pytest.raises(NoSuchJob, match=f"no job {number}"):
            tell(number)
        with pytest.raises(NoSuchJob):
            bench.runner.get(number)
    number, work = bench.started()
    work.end()
    bench.over(number)
    with pytest.raises(JobOver, match=f"job {number} is over: done"):
        tell(number)


def test_all_are_cancelled(bench: Bench) -> None:
    jobs = [bench.start()[0] for _ in range(6)]
    bench.runner.pause(jobs[2])
    bench.runner.cancel_all()
    assert {bench.over(number).state for number in jobs} == {JobState.CANCELLED}
    bench.runner.cancel_all()


def test_there_is_an_end_to_what_may_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "MOST_WAITING", 5)
    jobs = [bench.start() for _ in range(5)]
    with pytest.raises(TryLater, match="5 jobs"):
        bench.start()
    bench.runner.cancel(jobs[-1][0])
    bench.start()


def test_a_job_that_cannot_be_written_down_does_not_begin(bench: Bench) -> None:
    (bench.folder / "jobs.json.new").mkdir()
    with pytest.raises(MachineError, match=r"cannot save .*jobs\.json"):
        bench.start("db")
    assert bench.runner.list() == ()
    (bench.folder / "jobs.json.new").rmdir()
    number, work = bench.started("db")
    assert number == 1
    assert not bench.works[0].began.is_set()
    work.end()


def test_a_full_disk_does_not_keep_a_job_from_ending(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    number, work = bench.started("db")
    (bench.folder / "jobs.json.new").mkdir()
    work.end()
    assert bench.over(number).state is JobState.DONE
    assert bench.runner.busy_zones == {}
    assert f"job {number} is done, but cannot save" in caplog.text


def test_listeners_hear_of_every_change_of_state(bench: Bench) -> None:
    number, work = bench.started()
    for order in (bench.runner.pause, bench.runner.resume):
        bench.heard.clear()
        order(number)
        assert bench.heard == [number]
    bench.heard.clear()
    states: list[JobState] = []
    unsubscribe = bench.runner.subscribe(lambda heard: states.append(bench.runner.get(heard).state))
    work.end()
    until(lambda: states == [JobState.DONE])
    until(lambda: bench.heard == [number])
    unsubscribe()
    unsubscribe()
    other, _ = bench.started()
    assert other in bench.heard
    assert states == [JobState.DONE]


def test_listeners_hear_of_a_job_whose_turn_comes(bench: Bench) -> None:
    jobs = [bench.start() for _ in range(6)]
    (first, work), (fifth, _), (sixth, _) = jobs[0], *jobs[4:]
    states: list[tuple[int, JobState]] = []

    def note(number: int) -> None:
        states.append((number, bench.runner.get(number).state))

    bench.runner.subscribe(note)
    work.end()
    until(lambda: (fifth, JobState.RUNNING) in states)
    assert states[0] == (first, JobState.DONE)
    bench.runner.pause(fifth)
    until(lambda: (sixth, JobState.RUNNING) in states)


def test_a_list_made_while_a_job_ends_shows_no_job_as_running_that_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, work = bench.started()
    book = bench.runner._book

    class Late(type(book)):  # type: ignore[misc]
        @property
        def jobs(self) -> dict[int, Job]:
            work.end()
            bench.over(number)
            found: dict[int, Job] = super().jobs
            return found

    monkeypatch.setattr(book, "__class__", Late)
    assert [job.state for job in bench.runner.list()] == [JobState.DONE]


def test_an_end_is_told_only_once_it_is_on_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving, save = threading.Event(), threading.Event()
    number, work = bench.started("db")
    put = bench.runner._book.put

    def slow_put(*arguments: object, **options: object) -> None:
        saving.set()
        assert save.wait(LIMIT)
        put(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.runner._book, "put", slow_put)
    work.end()
    assert saving.wait(LIMIT)
    assert bench.runner.get(number).state is JobState.RUNNING
    assert [job.state for job in bench.runner.list()] == [JobState.RUNNING]
    assert bench.runner.busy_zones == {"db": number}
    save.set()
    assert bench.over(number).state is JobState.DONE


def test_the_thread_that_changes_things_may_ask_while_jobs_wait_for_it(bench: Bench) -> None:
    """Nothing is locked while a job waits for its turn to change the machine."""
    asked, answer = threading.Event(), threading.Event()

    def change(work: Callable[[], None]) -> None:
        asked.set()
        assert answer.wait(LIMIT)
        work()

    bench.runner._change = change  # type: ignore[assignment]
    number = bench.runner.start(job_request("db"), 0, lambda job: job.change(lambda: None)).id
    assert asked.wait(LIMIT)
    with pytest.raises(ZoneBusy):
        bench.runner.refuse_busy("db")
    bench.runner.start(job_request("web"), 0, Work())
    assert bench.runner.pause(number).state is JobState.PAUSED
    assert len(bench.runner.list()) == 2
    answer.set()
    assert bench.over(number).state is JobState.DONE
