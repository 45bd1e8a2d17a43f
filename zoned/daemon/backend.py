# SPDX-License-Identifier: Apache-2.0
"""What the socket's methods do for one caller: may it, then do it in the right thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.daemon import views
from zoned.daemon.request import zone_spec
from zoned.policy import values

if TYPE_CHECKING:
    from zoned.api.types import MoveReport, StatusInfo, ZoneDetail, ZoneInfo
    from zoned.daemon.peer import Peer
    from zoned.daemon.worker import Worker
    from zoned.engine.engine import Engine


class PeerBackend:
    """The daemon's methods, for one peer."""

    def __init__(self, engine: Engine, worker: Worker, peer: Peer) -> None:
        self._engine = engine
        self._machine = engine.machine
        self._worker = worker
        self._peer = peer

    async def status(self) -> StatusInfo:
        self._peer.require_reader()
        return await self._worker.look(lambda: views.status(self._machine, self._engine.alerts))

    async def reset(self) -> list[str]:
        self._peer.require_writer("reset zones")
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

    async def destroy(self, name: str, *, drain: str | None, kill: bool | None) -> None:
        self._peer.require_writer("destroy zones")
        await self._worker.change(lambda: self._engine.destroy(name, drain=drain, kill=bool(kill)))

    async def attach(
        self, name: str, *, pid: int | None, unit: str | None, cgroup: str | None
    ) -> MoveReport:
        self._peer.require_writer("attach to zones")
        moved = await self._worker.change(
            lambda: self._engine.attach(name, pid=pid, unit=unit, cgroup=cgroup)
        )
        return await self._worker.look(lambda: views.move_report(self._machine, name, moved))

    async def detach(
        self, name: str, *, pid: int | None, unit: str | None, cgroup: str | None
    ) -> MoveReport:
        self._peer.require_writer("detach from zones")
        moved = await self._worker.change(
            lambda: self._engine.detach(name, pid=pid, unit=unit, cgroup=cgroup)
        )
        return await self._worker.look(lambda: views.move_report(self._machine, name, moved))

    async def enter(self, name: str) -> None:
        self._peer.require_one_of(self._engine.users_of(name), name)
        await self._worker.change(lambda: self._engine.enter(name, self._peer.pid))

    def _show(self, name: str) -> ZoneDetail:
        return views.show_zone(self._machine, name, self._engine.alerts)
