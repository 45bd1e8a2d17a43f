# SPDX-License-Identifier: Apache-2.0
"""The varlink interfaces of zoned. Each method is declared once: the daemon hands in what carries
it out, and `varlinkctl introspect` prints it. The client does without: loading this takes longer
than most commands of zonectl.

The library reads annotations at import, so they stay real objects here.
"""

from collections.abc import AsyncIterator

from asyncvarlink import (
    AnnotatedResult,
    VarlinkInterface,
    varlinkmethod,
)

from zoned.api.backend import Backend
from zoned.api.failed import Failed as Failed
from zoned.api.interfaces_buffers import DmaBuffers
from zoned.api.interfaces_dma import Dma
from zoned.api.types import (
    BaseListInfo,
    BlockInfo,
    JobInfo,
    StatusInfo,
    SurveyInfo,
    ZoneDetail,
    ZoneInfo,
    ZoneRequest,
)
from zoned.model.job import JobKind


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
            ZoneRequest(
                name=name,
                size=size,
                nodes=nodes,
                near=near,
                backing=backing,
                cpus=cpus,
                exclusive_cpus=exclusive_cpus,
                swap=swap,
                users=users,
            )
        )

    @varlinkmethod(return_parameter="job")
    async def StartCreate(self, *, zone: ZoneRequest) -> JobInfo:
        """Do as Create does, as a job: zones of blocks or whole nodes take their time."""
        return await self._backend.start_create(zone)

    @varlinkmethod(return_parameter="zone")
    async def Resize(self, *, name: str, size: int) -> ZoneDetail:
        """Change a zone's size. A smaller one is refused if the kernel cannot make room."""
        return await self._backend.resize(name, size)

    @varlinkmethod(return_parameter="job")
    async def StartResize(self, *, name: str, size: int) -> JobInfo:
        """Do as Resize does, as a job: zones of blocks take their time."""
        return await self._backend.start_job(JobKind.RESIZE, name=name, size=size)

    @varlinkmethod(return_parameter="job")
    async def Destroy(
        self,
        *,
        name: str,
        drain: str | None = None,
        kill: bool | None = None,
        stall: float | None = None,
        rate: float | None = None,
    ) -> JobInfo:
        """Destroy a zone. drain is a zone or "root"; without it and kill, members refuse it."""
        return await self._backend.start_job(
            JobKind.DESTROY, name=name, drain=drain, kill=kill, stall=stall, rate=rate
        )

    @varlinkmethod(return_parameter="job")
    async def Move(
        self,
        *,
        name: str,
        nodes: str,
        stall: float | None = None,
        rate: float | None = None,
        movers: int | None = None,
    ) -> JobInfo:
        """Move a zone, with the pages of its members, to other nodes.

        stall is in milliseconds, rate in MB/s (10^6 bytes), movers a number of threads.
        """
        return await self._backend.start_job(
            JobKind.MOVE, name=name, nodes=nodes, stall=stall, rate=rate, movers=movers
        )

    @varlinkmethod(return_parameter="job")
    async def Attach(
        self,
        *,
        name: str,
        pid: int | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
        stall: float | None = None,
        rate: float | None = None,
        movers: int | None = None,
    ) -> JobInfo:
        """Make a process, a unit or the processes of a cgroup members, and move their pages."""
        who = {"pid": pid, "unit": unit, "cgroup": cgroup}
        return await self._backend.start_job(
            JobKind.ATTACH, name=name, **who, stall=stall, rate=rate, movers=movers
        )

    @varlinkmethod(return_parameter="job")
    async def Detach(
        self,
        *,
        name: str,
        pid: int | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
        stall: float | None = None,
        rate: float | None = None,
        movers: int | None = None,
    ) -> JobInfo:
        """Undo an Attach."""
        who = {"pid": pid, "unit": unit, "cgroup": cgroup}
        return await self._backend.start_job(
            JobKind.DETACH, name=name, **who, stall=stall, rate=rate, movers=movers
        )

    @varlinkmethod
    async def Enter(self, *, name: str) -> None:
        """Put the calling process itself into the zone."""
        await self._backend.enter(name)


class Memory(VarlinkInterface, name="io.zoned.Memory"):
    """The pages of processes, and the memory blocks of the machine."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="job")
    async def Migrate(
        self,
        *,
        target: str,
        source: str | None = None,
        pid: int | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
        zone: str | None = None,
        shared: bool | None = None,
        stall: float | None = None,
        rate: float | None = None,
        movers: int | None = None,
    ) -> JobInfo:
        """Move pages from the nodes source (all others) to the nodes target.

        Of a process, a unit, a cgroup or a zone's members; with shared also those that others map.
        stall is in milliseconds, rate in MB/s (10^6 bytes), movers a number of threads.
        """
        who = {"pid": pid, "unit": unit, "cgroup": cgroup, "zone": zone}
        how = {"shared": shared, "stall": stall, "rate": rate, "movers": movers}
        return await self._backend.start_job(
            JobKind.MIGRATE, target=target, source=source, **who, **how
        )

    @varlinkmethod(return_parameter="survey")
    async def Survey(
        self,
        *,
        kind: str,
        name: str | None = None,
        nodes: str | None = None,
        target: str | None = None,
        source: str | None = None,
        pid: int | None = None,
        unit: str | None = None,
        cgroup: str | None = None,
        zone: str | None = None,
        shared: bool | None = None,
        stall: float | None = None,
        rate: float | None = None,
        movers: int | None = None,
    ) -> SurveyInfo:
        """Tell what a job would do: kind is "migrate", "move" or "attach", the rest is as there."""
        who = {"pid": pid, "unit": unit, "cgroup": cgroup, "zone": zone}
        how = {"shared": shared, "stall": stall, "rate": rate, "movers": movers}
        return await self._backend.survey(
            kind, name=name, nodes=nodes, target=target, source=source, **who, **how
        )

    @varlinkmethod(return_parameter="blocks")
    async def Blocks(self) -> list[BlockInfo]:
        """List the memory blocks that zoned holds; all others belong to their base zones."""
        return await self._backend.held_blocks()

    @varlinkmethod(return_parameter="job")
    async def Park(self, *, node: int, size: int, keep: bool | None = None) -> JobInfo:
        """Take memory blocks of a node offline, size rounded up to whole ones.

        keep tells that what was taken stays so where it is not all.
        """
        return await self._backend.start_job(JobKind.PARK, node=node, size=size, keep=keep)

    @varlinkmethod(return_parameter="job")
    async def Unpark(self, *, node: int, size: int | None = None) -> JobInfo:
        """Bring parked memory blocks of a node back as they were, all of them without a size."""
        return await self._backend.start_job(JobKind.UNPARK, node=node, size=size)

    @varlinkmethod(return_parameter="job")
    async def Offline(self, *, blocks: str) -> JobInfo:
        """Do as Park does with the blocks of these numbers, a list like 12,14-15, and no others."""
        return await self._backend.start_job(JobKind.OFFLINE, blocks=blocks)

    @varlinkmethod(return_parameter="job")
    async def Online(self, *, blocks: str) -> JobInfo:
        """Bring the parked blocks of these numbers back as they were."""
        return await self._backend.start_job(JobKind.ONLINE, blocks=blocks)

    @varlinkmethod(return_parameter="base")
    async def BaseList(self) -> BaseListInfo:
        """List the base zones, where their memory is from, and the device-dax regions."""
        return await self._backend.list_base()

    @varlinkmethod(return_parameter="job")
    async def BaseAdd(self, *, base: str, movable_only: bool | None = None) -> JobInfo:
        """Bring a base zone's memory online: base is a node, or a device-dax region (dax0.0).

        With movable_only it gets no memory for the kernel, until it leaves.
        """
        return await self._backend.start_job(JobKind.BASE_ADD, base=base, movable_only=movable_only)

    @varlinkmethod(return_parameter="job")
    async def BaseRemove(self, *, base: str, keep: bool | None = None) -> JobInfo:
        """Take a base zone's memory offline, so that it can leave; zones on it refuse that.

        keep tells that what went offline stays so where it is not all.
        """
        return await self._backend.start_job(JobKind.BASE_REMOVE, base=base, keep=keep)


class Jobs(VarlinkInterface, name="io.zoned.Jobs"):
    """What takes long. A job goes on when its caller goes away."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="jobs")
    async def List(self) -> list[JobInfo]:
        """List the jobs that run or wait, and the last ones that are over; oldest first."""
        return await self._backend.list_jobs()

    @varlinkmethod(return_parameter="job")
    async def Show(self, *, id: int) -> JobInfo:  # noqa: A002 - the name in the protocol
        """Tell how far a job is, or how it ended."""
        return await self._backend.show_job(id)

    @varlinkmethod(return_parameter="job")
    async def Pause(self, *, id: int) -> JobInfo:  # noqa: A002
        """Have a job stop at its next step, until it is resumed."""
        return await self._backend.pause_job(id)

    @varlinkmethod(return_parameter="job")
    async def Resume(self, *, id: int) -> JobInfo:  # noqa: A002
        """Let a paused job go on."""
        return await self._backend.resume_job(id)

    @varlinkmethod(return_parameter="job")
    async def Cancel(self, *, id: int) -> JobInfo:  # noqa: A002
        """Have a job end; it tidies up first. What was moved stays where it is."""
        return await self._backend.cancel_job(id)

    @varlinkmethod(return_parameter="job", return_type=JobInfo)
    async def Watch(self, *, id: int) -> AsyncIterator[AnnotatedResult]:  # noqa: A002
        """Follow a job: as it is now, whenever it changed, every 5 s, and at last how it ended.

        Without `more` only the last is told. The connection breaks where the daemon stops.
        """
        async for job, continues in self._backend.watch_job(id):
            yield AnnotatedResult({"job": job}, continues=continues)


INTERFACES = (Service, Policy, Zones, Memory, Dma, DmaBuffers, Jobs)
