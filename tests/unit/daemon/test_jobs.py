# SPDX-License-Identifier: Apache-2.0
"""What is shown of jobs, and who hears of them when."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_jobs import LIMIT, MIB, Bench, job_request
from zoned.api.types import ErrorInfo, JobInfo, NodeSurvey, RoomInfo, SurveyInfo
from zoned.daemon import jobs as jobs_module
from zoned.daemon.jobs import JobDesk, job_info, survey_info
from zoned.errors import NoSuchJob
from zoned.model.job import Job, JobError, JobState, Progress
from zoned.model.migration import Kind, NodeRoom, Outcome, Survey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        await asyncio.wait_for(body(), 3 * LIMIT)

    asyncio.run(in_time())


async def until(condition: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


def test_what_is_shown_of_a_job() -> None:
    job = Job(
        id=7,
        request=job_request("db", what="attach pid 5 to zone db"),
        uid=1000,
        state=JobState.RUNNING,
        progress=Progress(
            phase="moving",
            total=10 * MIB,
            outcomes={Outcome.MOVED: 4 * MIB, Outcome.THERE: MIB, Outcome.PINNED: MIB},
            processes=3,
            gone=1,
            longest_call=0.25,
            notes=("a note",),
            foreign=9,
        ),
        created=1.0,
        started=2.0,
        rate=float(MIB),
    )
    found = job_info(job)
    assert found == JobInfo(
        id=7,
        kind="migrate",
        what="attach pid 5 to zone db",
        state="running",
        phase="moving",
        total=10 * MIB,
        done=5 * MIB,
        left=5 * MIB,
        left_behind=MIB,
        rate=float(MIB),
        eta=5.0,
        outcomes={"moved": 4 * MIB, "there": MIB, "pinned": MIB},
        processes=3,
        gone=1,
        longest_call=0.25,
        foreign=9,
        notes=["a note"],
        created=1.0,
        started=2.0,
        ended=None,
        error=None,
    )
    error = JobError(code="machine", message="no", hint="why not")
    failed = job_info(dataclasses.replace(job, error=error, state=JobState.FAILED))
    assert failed.error == ErrorInfo(code="machine", message="no", hint="why not")
    assert failed.eta is None


@pytest.mark.parametrize(("to_move", "fits"), [(3 * MIB, True), (3 * MIB + 1, False)])
def test_what_is_shown_of_a_look_ahead(to_move: int, *, fits: bool) -> None:
    rooms = (
        NodeRoom(node=1, free=2 * MIB, reclaimable=2 * MIB, promised=MIB),
        NodeRoom(node=3, free=2 * MIB, reclaimable=0, promised=3 * MIB),
    )
    survey = Survey(
        processes=2,
        by_node={2: {Kind.THP: 5, Kind.FILE: 6}, 0: {Kind.ANONYMOUS: 7, Kind.HUGETLB: 8}},
        shared=3,
        locked=4,
        to_move=to_move,
        stays={Outcome.PINNED: 9},
        rooms=rooms,
        seconds=1.5,
    )
    assert survey_info("move zone db", survey) == SurveyInfo(
        what="move zone db",
        processes=2,
        by_node=[
            NodeSurvey(node=0, anonymous=7, file=0, thp=0, hugetlb=8),
            NodeSurvey(node=2, anonymous=0, file=6, thp=5, hugetlb=0),
        ],
        shared=3,
        locked=4,
        to_move=to_move,
        stays={"pinned": 9},
        rooms=[
            RoomInfo(node=1, free=2 * MIB, reclaimable=2 * MIB, promised=MIB, pool=0, room=3 * MIB),
            RoomInfo(node=3, free=2 * MIB, reclaimable=0, promised=3 * MIB, pool=0, room=0),
        ],
        fits=fits,
        seconds=1.5,
    )


def test_a_follower_hears_of_each_state_and_of_the_last_once(bench: Bench) -> None:
    async def body() -> None:
        desk = JobDesk(bench.runner)
        number, work = bench.started()
        seen: list[tuple[str, bool]] = []

        async def follow() -> None:
            async for info, continues in desk.watch(number):
                seen.append((info.state, continues))

        following = asyncio.create_task(follow())
        await until(lambda: seen)
        bench.runner.pause(number)
        await until(lambda: ("paused", True) in seen)
        bench.runner.resume(number)
        work.move()
        work.end()
        await following
        assert seen[0] == ("running", True)
        assert [each for each in seen if not each[1]] == [("done", False)] == seen[-1:]
        assert [info.state async for info, _ in desk.watch(number)] == ["done"]
        assert not desk._following

    run(body)


def test_nobody_is_told_more_often_than_that(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    least = 0.05
    monkeypatch.setattr(jobs_module, "LEAST", least)

    async def body() -> None:
        desk = JobDesk(bench.runner)
        number, work = bench.started()
        clock = asyncio.get_running_loop().time
        times = []
        async for _, continues in desk.watch(number):
            times.append(clock())
            if len(times) > 3 and continues:
                break
            work.move()
        assert all(later - time >= least for time, later in itertools.pairwise(times))

    run(body)


def test_the_end_is_told_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "LEAST", 3600.0)

    async def body() -> None:
        desk = JobDesk(bench.runner)
        number, work = bench.started()
        states = []
        async for info, continues in desk.watch(number):
            states.append(info.state)
            if continues:
                work.end()
        assert states == ["running", "done"]

    run(body)


def test_what_changes_between_two_words_is_told_with_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "LEAST", 0.01)
    monkeypatch.setattr(jobs_module, "LOOK", 3600.0)

    async def body() -> None:
        desk = JobDesk(bench.runner)
        number, _ = bench.started()
        async with aclosing(desk.watch(number)) as told:
            async for info, _ in told:
                if info.state == "paused":
                    break
                bench.runner.pause(number)

    run(body)


def test_a_job_at_which_nothing_happens_is_told_of_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "SIGN_OF_LIFE", 0.01)
    monkeypatch.setattr(jobs_module, "LOOK", 0.001)

    async def body() -> None:
        desk = JobDesk(bench.runner)
        number, _ = bench.started()
        bench.runner.pause(number)
        seen: list[JobInfo] = []
        async with aclosing(desk.watch(number)) as told:
            async for info, _ in told:
                seen.append(info)
                if len(seen) == 3:
                    break
        assert seen == [seen[0]] * 3
        assert not desk._following

    run(body)


def test_what_changes_by_itself_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate falls while no job says a word."""
    monkeypatch.setattr(jobs_module, "LOOK", 0.001)

    async def body() -> None:
        desk = JobDesk(bench.runner)
        number, _ = bench.started()
        rates = iter([3.0, 2.0, 2.0, 1.0])
        get = bench.runner.get

        def decaying(asked: int) -> Job:
            return dataclasses.replace(get(asked), rate=next(rates, None))

        monkeypatch.setattr(bench.runner, "get", decaying)
        seen: list[float | None] = []
        async with aclosing(desk.watch(number)) as told:
            async for info, _ in told:
                seen.append(info.rate)
                if info.rate is None:
                    break
        assert seen == [3.0, 2.0, 1.0, None]

    run(body)


def test_a_job_that_is_not_there(bench: Bench) -> None:
    async def body() -> None:
        desk = JobDesk(bench.runner)
        with pytest.raises(NoSuchJob):
            await anext(desk.watch(5))
        assert not desk._following

    run(body)


def test_stopping_lets_go_of_all_who_follow(bench: Bench) -> None:
    async def body() -> None:
        desk = JobDesk(bench.runner)
        number, _ = bench.started()
        seen: list[bool] = []

        async def follow() -> None:
            async for _, continues in desk.watch(number):
                seen.append(continues)

        followers = [asyncio.create_task(follow()) for _ in range(3)]
        await until(lambda: len(seen) == 3)
        desk.stop()
        desk.stop()
        await asyncio.gather(*followers)
        assert set(seen) == {True}
        assert [info async for info, _ in desk.watch(number)] == []
        assert desk.runner._listeners == (bench.heard.append,)

    run(body)


def test_waiting_for_all_jobs(bench: Bench) -> None:
    async def body() -> None:
        desk = JobDesk(bench.runner)
        assert await desk.all_over(0)
        jobs = [bench.start() for _ in range(6)]
        assert not await desk.all_over(0.01)
        waiting = asyncio.create_task(desk.all_over(LIMIT))
        for _, work in jobs[:-1]:
            work.end()
        await until(lambda: len(bench.runner.unfinished) == 1)
        assert not waiting.done()
        jobs[-1][1].end()
        assert await waiting
        assert not desk._following

    run(body)


def test_stopping_ends_the_wait_for_all_jobs(bench: Bench) -> None:
    async def body() -> None:
        desk = JobDesk(bench.runner)
        bench.started()
        waiting = asyncio.create_task(desk.all_over(1000))
        await until(lambda: desk._following)
        desk.stop()
        assert not await waiting

    run(body)


def test_a_job_may_speak_when_the_loop_is_over(bench: Bench) -> None:
    desks: list[JobDesk] = []

    async def body() -> None:
        desks.append(JobDesk(bench.runner))

    run(body)
    number, work = bench.start()
    work.end()
    assert bench.over(number).state is JobState.DONE


def test_words_of_one_job_wake_only_those_who_follow_it(bench: Bench) -> None:
    async def body() -> None:
        desk = JobDesk(bench.runner)
        with desk._hearing(1) as one, desk._hearing(2) as two, desk._hearing(None) as each:
            desk._wake(2)
            assert (one.is_set(), two.is_set(), each.is_set()) == (False, True, True)

    run(body)
