# SPDX-License-Identifier: Apache-2.0
"""What the socket's methods do for one caller: may it, then do it in the right thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoned.daemon import views
from zoned.daemon.base import list_base
from zoned.daemon.dma import list_reservations, manual
from zoned.daemon.jobs import job_info, survey_info
from zoned.daemon.peer import caller
from zoned.daemon.request import asked_buffer, job_parameters, surveyed_kind, zone_spec
from zoned.daemon.views_buffers import buffer_info
from zoned.engine.zones import find_zone
from zoned.errors import TryLater, revive
from zoned.model.job import JobKind, JobState
from zoned.policy import values

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from zoned.api.types import (
        AlertInfo,
        BaseListInfo,
        BlockInfo,
        JobInfo,
        StatusInfo,
        SurveyInfo,
        ZoneDetail,
        ZoneInfo,
        ZoneRequest,
    )
    from zoned.api.types_buffers import BufferInfo, LeasesInfo
    from zoned.api.types_dma import ReservationInfo
    from zoned.daemon.buffers import BufferDesk
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
    JobKind.RESIZE: "resize zones",
    JobKind.PARK: "park memory blocks",
    JobKind.UNPARK: "unpark memory blocks",
    JobKind.OFFLINE: "take memory blocks offline",
    JobKind.ONLINE: "bring memory blocks online",
    JobKind.BASE_ADD: "add base zones",
    JobKind.BASE_REMOVE: "remove base zones",
    JobKind.DMA_RESERVE: "reserve memory for devices",
    JobKind.DMA_RELEASE: "release memory of devices",
}


class PeerBackend:
    """The daemon's methods, for one peer."""

    def __init__(
        self, engine: Engine, worker: Worker, desk: JobDesk, buffers: BufferDesk, peer: Peer
    ) -> None:
        self._engine = engine
        self._buffers = buffers
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

    async def create(self, wanted: ZoneRequest) -> ZoneDetail:
        self._peer.require_writer("create zones")
        spec = zone_spec(wanted)
        if spec.backing.is_slow:
            await self._run_job(JobKind.CREATE, {"spec": spec})
        else:
            await self._worker.change(lambda: self._engine.create(spec))
        return await self._worker.look(lambda: self._show(spec.name))

    async def start_create(self, wanted: ZoneRequest) -> JobInfo:
        self._peer.require_writer("create zones")
        return await self._start(JobKind.CREATE, {"spec": zone_spec(wanted)})

    async def resize(self, name: str, size: int) -> ZoneDetail:
        self._peer.require_writer("resize zones")
        checked = values.size(size)
        zone = find_zone(self._machine, name)
        if zone.spec.backing.is_slow:
            await self._run_job(JobKind.RESIZE, {"name": name, "size": checked})
        else:
            await self._worker.change(lambda: self._engine.resize(name, checked))
        return await self._worker.look(lambda: self._show(name))

    async def list_base(self) -> BaseListInfo:
        self._peer.require_reader()
        return await self._worker.look(lambda: list_base(self._machine))

    async def held_blocks(self) -> list[BlockInfo]:
        self._peer.require_reader()
        return views.held_blocks(self._machine)

    async def dma_list(self) -> list[ReservationInfo]:
        self._peer.require_reader()
        return await self._worker.look(
            lambda: list_reservations(self._machine, self._jobs.busy_zones.get)
        )

    async def dma_reserve(
        self,
        *,
        device: str,
        size: int,
        name: str | None,
        limit: str | None,
        rungs: list[str] | None,
    ) -> JobInfo:
        self._peer.require_writer(_RIGHTS[JobKind.DMA_RESERVE])
        asked = manual(device=device, size=size, name=name, limit=limit, rungs=rungs)
        return await self._start(JobKind.DMA_RESERVE, {"manual": asked})

    async def dma_release(self, name: str) -> JobInfo:
        return await self.start_job(JobKind.DMA_RELEASE, name=name)

    async def dma_check(self) -> list[AlertInfo]:
        self._peer.require_reader()
        found = await self._worker.change(self._engine.dma_check)
        return [views.alert_info(alert) for alert in found]

    async def dma_prepare(self, device: str) -> JobInfo | None:
        self._peer.require_writer("prepare devices")
        number = await self._worker.change(lambda: self._engine.dma_prepare(device))
        return None if number is None else job_info(self._jobs.get(number))

    async def enter(self, name: str) -> None:
        self._peer.require_one_of(self._engine.users_of(name), name)
        root = self._engine.machine.root
        await self._worker.change(lambda: self._engine.enter(name, caller(root, self._peer).pid))

    async def start_job(self, kind: JobKind, **parameters: Any) -> JobInfo:
        self._peer.require_writer(_RIGHTS[kind])
        return await self._start(kind, job_parameters(parameters))

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

    async def alloc_buffer(
        self,
        reservation: str | None,
        device: str | None,
        size: int,
        *,
        align: int | None,
        segments: int | None,
        dmabuf: bool,
    ) -> BufferInfo:
        asked = asked_buffer(size, align, segments)
        handed = await self._buffers.alloc(self._peer, reservation, device, asked, dmabuf=dmabuf)
        return buffer_info(handed)

    async def free_buffer(self, lease: int) -> None:
        await self._buffers.free(self._peer, lease)

    async def list_buffers(self) -> LeasesInfo:
        return await self._buffers.leases(self._peer)

    async def _start(self, kind: JobKind, given: Mapping[str, Any]) -> JobInfo:
        def start() -> Job:
            # In one piece: between judging a request and holding its zone nothing may change.
            request, body = self._engine.prepare(kind, given)
            return self._jobs.start(request, self._peer.uid, body)

        return job_info(await self._worker.change(start))

    async def _run_job(self, kind: JobKind, given: Mapping[str, Any]) -> None:
        """Run a job to its end, for a caller that does not follow jobs. Raises what ended it."""
        job = await self._start(kind, given)
        async for told, _ in self._desk.watch(job.id):
            job = told
        if job.error is not None:
            raise revive(job.error.code, job.error.message, job.error.hint)
        if job.state != JobState.DONE:
            raise TryLater(f"job {job.id} is {job.state}", hint=f"zonectl job {job.id} shows it")

    async def _control(self, what: str, work: Callable[[int], Job], number: int) -> JobInfo:
        self._peer.require_writer(what)
        # Not in the thread that changes the machine: a job must be stoppable while that is busy.
        return job_info(await self._worker.look(lambda: work(number)))

    def _show(self, name: str) -> ZoneDetail:
        return views.show_zone(self._machine, name, self._engine.alerts)
