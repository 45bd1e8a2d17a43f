# SPDX-License-Identifier: Apache-2.0
"""Jobs as the daemon's clients see them: what is shown of one, and how it is followed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from zoned.api.types import ErrorInfo, JobInfo, NodeSurvey, RoomInfo, SurveyInfo
from zoned.model.migration import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from zoned.engine.jobs.runner import JobRunner
    from zoned.model.job import Job
    from zoned.model.migration import Survey

LEAST = 0.25
"""Seconds between two words about the same job to the same client, unless it is over."""

LOOK = 1.0
"""Seconds after which a job that runs is looked at again: its rate changes by itself."""

SIGN_OF_LIFE = 5.0
"""Seconds after which a client is told even that nothing has changed."""


class JobDesk:
    """Tells those who follow jobs what becomes of them. Belongs to the event loop."""

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner
        self._loop = asyncio.get_running_loop()
        self._following: dict[asyncio.Event, int | None] = {}
        self._stopping = False
        self._unsubscribe = runner.subscribe(self._on_change)

    def stop(self) -> None:
        """Let go of those who follow jobs, without a last word: the jobs are not over."""
        self._unsubscribe()
        self._stopping = True
        for changed in self._following:
            changed.set()

    async def watch(self, number: int) -> AsyncGenerator[tuple[JobInfo, bool], None]:
        """Yield the job as it is now and whenever it changed, each with whether more follows.

        Raises NoSuchJob.
        """
        sent, when = None, 0.0
        with self._hearing(number) as changed:
            while not self._stopping:
                changed.clear()
                job = self.runner.get(number)
                info, over = job_info(job), job.state.is_over
                if over or info != sent or self._loop.time() - when >= SIGN_OF_LIFE:
                    sent, when = info, self._loop.time()
                    yield info, not over
                    if over:
                        return
                    await self._rest(number, changed)
                else:
                    await _within(changed, LOOK)

    async def _rest(self, number: int, changed: asyncio.Event) -> None:
        """Let the least time between two words pass, or less where the job is over before."""
        end = self._loop.time() + LEAST
        while not self._stopping and number in self.runner.unfinished:
            left = end - self._loop.time()
            if left <= 0:
                return
            changed.clear()
            await _within(changed, left)

    async def all_over(self, seconds: float) -> bool:
        """Wait until no job is left, so long at most; return whether that came to be."""
        deadline = self._loop.time() + seconds
        with self._hearing(None) as changed:
            while self.runner.unfinished and not self._stopping:
                changed.clear()
                left = deadline - self._loop.time()
                if left <= 0:
                    break
                await _within(changed, min(left, LOOK))
        return not self.runner.unfinished

    @contextlib.contextmanager
    def _hearing(self, number: int | None) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._following[changed] = number
        try:
            yield changed
        finally:
            del self._following[changed]

    def _on_change(self, number: int) -> None:
        # A job that did not stop in time may still speak when the loop has ended.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake, number)

    def _wake(self, number: int) -> None:
        for changed, followed in self._following.items():
            if followed in {None, number}:
                changed.set()


async def _within(changed: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        # Not wait_for, which may forget that it was cancelled before Python 3.12.
        async with asyncio.timeout(seconds):
            await changed.wait()


def job_info(job: Job) -> JobInfo:
    """Return what is shown of a job."""
    progress, error = job.progress, job.error
    return JobInfo(
        id=job.id,
        kind=job.request.kind.value,
        what=job.request.what,
        state=job.state.value,
        phase=progress.phase,
        total=progress.total,
        done=progress.done,
        left=progress.total - progress.done,
        left_behind=progress.left_behind,
        rate=job.rate,
        eta=job.eta,
        outcomes={what.value: size for what, size in progress.outcomes.items()},
        processes=progress.processes,
        gone=progress.gone,
        longest_call=progress.longest_call,
        foreign=progress.foreign,
        notes=list(progress.notes),
        created=job.created,
        started=job.started,
        ended=job.ended,
        error=None
        if error is None
        else ErrorInfo(code=error.code, message=error.message, hint=error.hint),
    )


def survey_info(what: str, survey: Survey) -> SurveyInfo:
    """Return what is shown of a look ahead."""
    rooms = [
        RoomInfo(
            node=each.node,
            free=each.free,
            reclaimable=each.reclaimable,
            promised=each.promised,
            pool=each.pool,
            room=each.room,
        )
        for each in survey.rooms
    ]
    return SurveyInfo(
        what=what,
        processes=survey.processes,
        by_node=[_node(node, kinds) for node, kinds in sorted(survey.by_node.items())],
        shared=survey.shared,
        locked=survey.locked,
        to_move=survey.to_move,
        stays={why.value: size for why, size in survey.stays.items()},
        rooms=rooms,
        fits=survey.fits,
        seconds=survey.seconds,
    )


def _node(node: int, kinds: Mapping[Kind, int]) -> NodeSurvey:
    return NodeSurvey(
        node=node,
        anonymous=kinds.get(Kind.ANONYMOUS, 0),
        file=kinds.get(Kind.FILE, 0),
        thp=kinds.get(Kind.THP, 0),
        hugetlb=kinds.get(Kind.HUGETLB, 0),
    )
