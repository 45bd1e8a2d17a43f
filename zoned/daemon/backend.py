# SPDX-License-Identifier: Apache-2.0
"""What the socket's methods do for one caller: may it, then do it in the right thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoned.daemon import views
from zoned.daemon.jobs import job_info, survey_info
from zoned.daemon.request import job_parameters, surveyed_kind, zone_spec
from zoned.errors import TryLater
from zoned.model.job import JobKind
from zoned.policy import values

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from zoned.api.types import JobInfo, StatusInfo, SurveyInfo, ZoneDetail, ZoneInfo
    from zoned.daemon.jobs import JobDesk
    from zoned.daemon.peer import Peer
    from zoned.daemon.worker import Worker
    from zoned.engine.engine import Engine
    from zoned.model.job import Job

LAST_JOBS = 30.0
"""Seconds that cancelled jobs get to tidy up before everything is reset."""

_RIGHTS = {
    JobKind.MIGRATE: "move memory",
    JobKind.MOVE: "move zones",
    JobKind.ATTACH: "attach to zones",
    JobKind.DETACH: "detach from zones",
    JobKind.DESTROY: "destroy zones",
}


class PeerBackend:
    """The daemon's methods, for one peer."""

    def __init__(self, engine: Engine, worker: Worker, desk: JobDesk, peer: Peer) -> None:
        self._engine = engine
        self._desk = desk
        self._jobs = desk.runner
        self._machine = engine.machine
        self._worker = worker
        self._peer = peer

    async def status(self) -> StatusInfo:
        self._peer.require_reader()
        return await self._worker.look(lambda: views.status(self._machine, self._engine.alerts))

    async def reset(self) -> list[str]:
        self._peer.require_writer("reset zones")
        await self._worker.look(self._jobs.cancel_all)
        if not await self._desk.all_over(LAST_JOBS):
            left = ", ".join(map(str, self._jobs.unfinished))
            raise TryLater(f"these jobs do not end: {left}", hint="nothing was reset; try again")
        return await self._worker.change(self._engine.reset)

    async def reload(self) -> None:
        self._peer.require_writer("reload the policy")
        await self._worker.change(self._engine.reload)

    async def list_zones(self) -> list[ZoneInfo]:
        self._peer.require_reader()
        return await self._worker.look(lambda: views.list_zones(self._machine, self._engine.alerts))

    async def show(self, name: str) -> ZoneDetail:
        self._peer.require_reader()
        return await self._worker.look(lambda: self._show(name))

    async def create(
        self,
        name: str,
        size: int,
        *,
        nodes: str | None,
        near: str | None,
        backing: str | None,
        cpus: str | None,
        exclusive_cpus: bool | None,
        swap: str | None,
        users: list[str] | None,
    ) -> ZoneDetail:
        self._peer.require_writer("create zones")
        spec = zone_spec(
            name=name,
            size=size,
            nodes=nodes,
            near=near,
            backing=backing,
            cpus=cpus,
            exclusive_cpus=bool(exclusive_cpus),
            swap=swap,
            users=users or [],
        )
        await self._worker.change(lambda: self._engine.create(spec))
        return await self._worker.look(lambda: self._show(name))

    async def resize(self, name: str, size: int) -> ZoneDetail:
        self._peer.require_writer("resize zones")
        checked = values.size(size)
        await self._worker.change(lambda: self._engine.resize(name, checked))
        return await self._worker.look(lambda: self._show(name))

    async def enter(self, name: str) -> None:
        self._peer.require_one_of(self._engine.users_of(name), name)
        await self._worker.change(lambda: self._engine.enter(name, self._peer.pid))

    async def start_job(self, kind: JobKind, **parameters: Any) -> JobInfo:
        self._peer.require_writer(_RIGHTS[kind])
        given = job_parameters(parameters)

        def start() -> Job:
            # In one piece: between judging a request and holding its zone nothing may change.
            request, body = self._engine.prepare(kind, given)
            return self._jobs.start(request, self._peer.uid, body)

        return job_info(await self._worker.change(start))

    async def survey(self, kind: str, **parameters: Any) -> SurveyInfo:
        self._peer.require_reader()
        wanted, given = surveyed_kind(kind), job_parameters(parameters)
        what, found = await self._worker.look(lambda: self._engine.survey(wanted, given))
        return survey_info(what, found)

    async def list_jobs(self) -> list[JobInfo]:
        self._peer.require_reader()
        return [job_info(job) for job in self._jobs.list()]

    async def show_job(self, number: int) -> JobInfo:
        self._peer.require_reader()
        return job_info(self._jobs.get(number))

    async def pause_job(self, number: int) -> JobInfo:
        return await self._control("pause jobs", self._jobs.pause, number)

    async def resume_job(self, number: int) -> JobInfo:
        return await self._control("resume jobs", self._jobs.resume, number)

    async def cancel_job(self, number: int) -> JobInfo:
        return await self._control("cancel jobs", self._jobs.cancel, number)

    async def watch_job(self, number: int) -> AsyncGenerator[tuple[JobInfo, bool], None]:
        self._peer.require_reader()
        async for told in self._desk.watch(number):
            yield told

    async def _control(self, what: str, work: Callable[[int], Job], number: int) -> JobInfo:
        self._peer.require_writer(what)
        # Not in the thread that changes the machine: a job must be stoppable while that is busy.
        return job_info(await self._worker.look(lambda: work(number)))

    def _show(self, name: str) -> ZoneDetail:
        return views.show_zone(self._machine, name, self._engine.alerts)
