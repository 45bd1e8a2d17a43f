# SPDX-License-Identifier: Apache-2.0
"""What the daemon does behind the interfaces, for one caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
    from zoned.model.job import JobKind


class Backend(Protocol):
    """Every method may raise ZonedError."""

    async def status(self) -> StatusInfo: ...
    async def reset(self) -> list[str]: ...
    async def reload(self) -> None: ...
    async def list_zones(self) -> list[ZoneInfo]: ...
    async def show(self, name: str) -> ZoneDetail: ...
    async def create(self, wanted: ZoneRequest) -> ZoneDetail: ...
    async def start_create(self, wanted: ZoneRequest) -> JobInfo: ...
    async def resize(self, name: str, size: int) -> ZoneDetail: ...
    async def list_base(self) -> BaseListInfo: ...
    async def held_blocks(self) -> list[BlockInfo]: ...
    async def enter(self, name: str) -> None: ...

    async def start_job(self, kind: JobKind, **parameters: Any) -> JobInfo:
        """Start what takes long. Parameters are those of the method; None was not given."""
        ...

    async def dma_list(self) -> list[ReservationInfo]: ...
    async def dma_reserve(
        self,
        *,
        device: str,
        size: int,
        name: str | None,
        limit: str | None,
        rungs: list[str] | None,
    ) -> JobInfo: ...
    async def dma_release(self, name: str) -> JobInfo: ...
    async def dma_check(self) -> list[AlertInfo]: ...
    async def dma_prepare(self, device: str) -> JobInfo | None: ...

    async def survey(self, kind: str, **parameters: Any) -> SurveyInfo:
        """Tell what `start_job` would do."""
        ...

    async def list_jobs(self) -> list[JobInfo]: ...
    async def show_job(self, number: int) -> JobInfo: ...
    async def pause_job(self, number: int) -> JobInfo: ...
    async def resume_job(self, number: int) -> JobInfo: ...
    async def cancel_job(self, number: int) -> JobInfo: ...

    def watch_job(self, number: int) -> AsyncIterator[tuple[JobInfo, bool]]:
        """Yield the job as it is now and whenever it changed, each with whether more follows.

        It ends without a last one where the daemon stops.
        """
        ...

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
        """Return a buffer with the descriptors themselves. Whoever calls this closes them."""
        ...

    async def free_buffer(self, lease: int) -> None: ...
    async def list_buffers(self) -> LeasesInfo: ...
