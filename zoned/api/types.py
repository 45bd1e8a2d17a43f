# SPDX-License-Identifier: Apache-2.0
"""What travels over the socket. Sizes are bytes; null is "unknown" or "no limit".

The classes are read at import to make the varlink description, so annotations stay real objects
here (no postponed evaluation).
"""

from dataclasses import dataclass

from zoned.api.zone_info import ZoneInfo as ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertInfo:
    code: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneRequest:
    """A zone that is to be made; what is null is as in zonectl(1)."""

    name: str
    size: int
    nodes: str | None = None
    near: str | None = None
    backing: str | None = None
    cpus: str | None = None
    exclusive_cpus: bool | None = None
    swap: str | None = None
    """"none", "max" or a size"""
    users: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsage:
    """How much of a zone is accounted for on a node, and how much is charged to it there."""

    node: int
    share: int
    used: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsInfo:
    """Limits, as wanted or as read back from the kernel."""

    max: int | None
    high: int | None
    min: int
    swap: int | None
    nodes: str | None
    cpus: str | None
    exclusive_cpus: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsInfo:
    oom: int | None
    oom_kill: int | None
    max: int | None
    high: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureInfo:
    """Percent of time in which some, or all, members waited for memory."""

    some_10s: float
    some_60s: float
    full_10s: float
    full_60s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberInfo:
    pid: int
    name: str
    anonymous: int | None
    """resident anonymous memory, wherever it is charged"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneDetail(ZoneInfo):
    """All of `zonectl show`."""

    origin: str
    users: list[str]
    units: list[str]
    cgroup: str | None
    by_node: list[NodeUsage]
    limits: LimitsInfo | None
    wanted: LimitsInfo
    peak: int | None
    swap_used: int | None
    pressure: PressureInfo | None
    events: EventsInfo
    processes: list[MemberInfo]
    alerts: list[AlertInfo]
    blocks: list[int]
    """the memory blocks that it holds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockInfo:
    """A memory block that zoned holds."""

    id: int
    owner: str
    former: str | None
    """the kernel's zone that it was in before; null where it was offline"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityInfo:
    """What a node can give to zones of backing `reserve`."""

    node: int
    total: int
    free: int | None
    system: int
    reserved: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusInfo:
    """All of `zonectl status`."""

    version: str
    ok: bool
    cgroups: str
    protects: bool
    group: str
    zones: int
    members: int
    nodes: list[CapacityInfo]
    policy_files: list[str]
    reservations: int
    """of memory for devices, that stand"""
    alerts: list[AlertInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseZoneInfo:
    """A node with memory blocks, or with memory. Counts are of memory blocks."""

    node: int
    source: str
    """boot, dimm, kmem, virtio-mem, cxl or unknown"""
    removable: bool | None
    total: int | None
    """bytes in use as memory"""
    blocks: int
    kernel: int
    """online, and the kernel can use them for itself"""
    movable: int
    """online, and can go offline again"""
    offline: int
    part_of: list[int]
    """the granules of the same physical node (numa=fake), with this one; empty for a whole node"""
    movable_only: bool | None
    """whether it is to have movable memory alone until it leaves; null as for zones"""
    zones: list[str] | None
    """who has a share there; null where nobody could be asked"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaxInfo:
    """A device-dax region."""

    name: str
    size: int | None
    node: int | None
    mode: str
    """devdax, system-ram or disabled"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseListInfo:
    """All of `zonectl base list`."""

    block_size: int | None
    auto_online: str | None
    """what the kernel does with new memory blocks by itself"""
    nodes: list[BaseZoneInfo]
    dax: list[DaxInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """Why a job failed. `code` is stable, as everywhere."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """One job. Times are seconds since the epoch, rates bytes a second, `eta` seconds."""

    id: int
    kind: str
    what: str
    state: str
    phase: str
    total: int
    done: int
    left: int
    """still to be done"""
    left_behind: int
    """given up: it stays where it should not be"""
    rate: float | None
    eta: float | None
    outcomes: dict[str, int]
    processes: int
    gone: int
    """processes that ended meanwhile"""
    longest_call: float
    """seconds"""
    foreign: int | None
    """bytes that the zone's members use and that are charged elsewhere"""
    notes: list[str]
    created: float
    started: float | None
    ended: float | None
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSurvey:
    """What processes have on a node, by kind."""

    node: int
    anonymous: int
    file: int
    thp: int
    hugetlb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomInfo:
    """What a target node can take."""

    node: int
    free: int
    reclaimable: int
    promised: int
    """to zones that do not use it yet"""
    pool: int
    """free pages of the hugetlb pools"""
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyInfo:
    """What a move would do (`--dry-run`)."""

    what: str
    processes: int
    by_node: list[NodeSurvey]
    shared: int
    locked: int
    to_move: int
    stays: dict[str, int]
    rooms: list[RoomInfo]
    fits: bool
    seconds: float | None
