# SPDX-License-Identifier: Apache-2.0
"""The varlink interfaces of zoned. Each method is declared once: the daemon hands in what carries
it out, the client calls through the same class, and `varlinkctl introspect` prints it.

The library reads annotations at import, so they stay real objects here.
"""

from typing import Protocol

from asyncvarlink import TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod

from zoned.api.types import MoveReport, StatusInfo, ZoneDetail, ZoneInfo


class Failed(TypedVarlinkErrorReply, name="io.zoned.Failed"):
    """The request failed. `code` is stable; `zonectl explain CODE` tells more."""

    class Parameters:
        code: str
        message: str
        hint: str


class Backend(Protocol):
    """What the daemon does for one caller. Every method may raise ZonedError."""

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
    async def destroy(self, name: str, *, drain: str | None, kill: bool | None) -> None: ...
    async def attach(
        self, name: str, *, pid: int | None, unit: str | None, cgroup: str | None
    ) -> MoveReport: ...
    async def detach(
        self, name: str, *, pid: int | None, unit: str | None, cgroup: str | None
    ) -> MoveReport: ...
    async def enter(self, name: str) -> None: ...


class Service(VarlinkInterface, name="io.zoned"):
    """The daemon as a whole."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="status")
    async def Status(self) -> StatusInfo:
        """Tell whether all is well."""
        return await self._backend.status()

    @varlinkmethod(return_parameter="left")
    async def Reset(self) -> list[str]:
        """Destroy every zone; members go back to where they came from. Returns what is left."""
        return await self._backend.reset()


class Policy(VarlinkInterface, name="io.zoned.Policy"):
    """The policy files."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod
    async def Reload(self) -> None:
        """Read the policy files again and bring them in force."""
        await self._backend.reload()


class Zones(VarlinkInterface, name="io.zoned.Zones"):
    """Derived zones. Sizes are bytes; node and CPU lists are written as numactl does."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="zones")
    async def List(self) -> list[ZoneInfo]:
        """List all zones by name."""
        return await self._backend.list_zones()

    @varlinkmethod(return_parameter="zone")
    async def Show(self, *, name: str) -> ZoneDetail:
        """Tell all about one zone."""
        return await self._backend.show(name)

    @varlinkmethod(return_parameter="zone")
    async def Create(
        self,
        *,
        name: str,
        size: int,
        nodes: str | None = None,
        near: str | None = None,
        backing: str | None = None,
        cpus: str | None = None,
        exclusive_cpus: bool | None = None,
        swap: str | None = None,
        users: list[str] | None = None,
    ) -> ZoneDetail:
        """Make a zone. swap is "none", "max" or a size; what is left out is as in zonectl(1)."""
        return await self._backend.create(
            name,
            size,
            nodes=nodes,
            near=near,
            backing=backing,
            cpus=cpus,
            exclusive_cpus=exclusive_cpus,
            swap=swap,
            users=users,
        )

    @varlinkmethod(return_parameter="zone")
    async def Resize(self, *, name: str, size: int) -> ZoneDetail:
        """Change a zone's size. A smaller one is refused if the kernel cannot make room."""
        return await self._backend.resize(name, size)

    @varlinkmethod
    async def Destroy(
        self, *, name: str, drain: str | None = None, kill: bool | None = None
    ) -> None:
        """Destroy a zone. drain is a zone or "root"; without it and kill, members refuse it."""
        await self._backend.destroy(name, drain=drain, kill=kill)

    @varlinkmethod(return_parameter="report")
    async def Attach(
        self,
        *,
        name: str,
        pid: int | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
    ) -> MoveReport:
        """Make a process, a unit or the processes of a cgroup members of the zone."""
        return await self._backend.attach(name, pid=pid, unit=unit, cgroup=cgroup)

    @varlinkmethod(return_parameter="report")
    async def Detach(
        self,
        *,
        name: str,
        pid: int | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
    ) -> MoveReport:
        """Undo an Attach."""
        return await self._backend.detach(name, pid=pid, unit=unit, cgroup=cgroup)

    @varlinkmethod
    async def Enter(self, *, name: str) -> None:
        """Put the calling process itself into the zone."""
        await self._backend.enter(name)


INTERFACES = (Service, Policy, Zones)
