# SPDX-License-Identifier: Apache-2.0
"""What the daemon does behind the interfaces, for one caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zoned.api.types import JobInfo, StatusInfo, SurveyInfo, ZoneDetail, ZoneInfo
    from zoned.model.job import JobKind


class Backend(Protocol):
    """Every method may raise ZonedError."""

    async def status(self) -> StatusInfo: ...
    async def reset(self) -> list[str]: ...
    async def reload(self) -> None: ...
    async def list_zones(self) -> list[ZoneInfo]: ...
    async def show(self, name: str) -> ZoneDetail: ...
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
    ) -> ZoneDetail: ...
    async def resize(self, name: str, size: int) -> ZoneDetail: ...
    async def enter(self, name: str) -> None: ...

    async def start_job(self, kind: JobKind, **parameters: Any) -> JobInfo:
        """Start what takes long. Parameters are those of the method; None was not given."""
        ...

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
