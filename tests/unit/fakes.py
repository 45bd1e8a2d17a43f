# SPDX-License-Identifier: Apache-2.0
"""A kernel's groups, a service manager's units and a machine, all in memory or below a folder.

The fakes are as strict as the real ones: a limit below what is used is refused, a group cannot be
made before its parent, and zones that are promised more than their parent is are written down.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.unit.fake_jobs import at_once
from tests.unit.fake_sys import NODES, add_node, write
from zoned.engine.dma.manual import ManualStore
from zoned.engine.engine import Engine
from zoned.engine.jobs.control import JobControl
from zoned.engine.ledger import Ledger
from zoned.engine.machine import Machine
from zoned.engine.store import Store
from zoned.errors import (
    BelowUse,
    HasMembers,
    KernelRefused,
    NoSuchCgroup,
    NoSuchProcess,
    NoSuchUnit,
    NoSuchZone,
)
from zoned.kernel.root import sysroot
from zoned.model.policy import Policy
from zoned.model.zone import Events, Group, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from zoned.errors import ZonedError
    from zoned.model.job import JobKind, Progress

MIB = 1 << 20
GIB = 1 << 30
PAGE = 4096
BOOT = "this-boot"
PARENT = "/zone"


@dataclass
class Failures:
    """Errors to raise at methods, by name; each as often as it was asked for."""

    planned: dict[str, list[ZonedError]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def at(self, method: str, error: ZonedError, times: int = 1) -> None:
        """Have the next calls of a method fail."""
        self.planned.setdefault(method, []).extend([error] * times)

    def call(self, method: str, *about: object) -> None:
        """Take note of a call, and raise what is planned for it."""
        self.calls.append(" ".join([method, *map(str, about)]))
        errors = self.planned.get(method)
        if errors:
            raise errors.pop(0)


@dataclass
class FakeGroup:
    """One zone's group. `held` is what reclaim cannot take away."""

    limits: Limits
    used: int = 0
    held: int = 0
    oom_kill: int = 0
    mems: frozenset[int] | None = None
    """the nodes in force, where they are not those of the limits"""
    by_node: Mapping[int, int] = field(default_factory=dict)
    anon: int | None = None


class FakeGroups:
    """See CgroupDriver."""

    kind = "v2"
    parent = PARENT

    def __init__(self, *, protects: bool = True) -> None:
        self.protects = protects
        self.failures = Failures()
        self.made: dict[str, FakeGroup] = {}
        self.there = False
        self.minimum = 0
        self.where: dict[int, str] = {}
        """pid -> the cgroup it is in"""
        self.units: dict[str, tuple[str, ...]] = {}
        """zone -> units that were started in it"""
        self.broken_promises: list[str] = []
        self.on_reclaim: Callable[[FakeGroup], None] = lambda _: None
        self.on_pids: Callable[[], None] = lambda: None

    def pids(self, zone: str) -> tuple[int, ...]:
        """Return a zone's members."""
        where = self.where.copy()
        return tuple(sorted(pid for pid, at in where.items() if at == f"{PARENT}/{zone}"))

    def prepare(self) -> None:
        self.failures.call("prepare")
        self.there = True

    def retire(self) -> None:
        self.failures.call("retire")
        if not self.made:
            self.there, self.minimum = False, 0

    def groups(self) -> tuple[Group, ...]:
        self.failures.call("groups")
        return tuple(self._shown(zone, group) for zone, group in sorted(self.made.copy().items()))

    def group(self, zone: str) -> Group | None:
        self.failures.call("group", zone)
        group = self.made.get(zone)
        return None if group is None else self._shown(zone, group)

    def _shown(self, zone: str, group: FakeGroup) -> Group:
        return Group(
            zone=zone,
            path=f"{PARENT}/{zone}",
            limits=group.limits,
            effective_mems=group.mems or group.limits.mems,
            used=group.used,
            anon=group.used if group.anon is None else group.anon,
            by_node=group.by_node,
            events=Events(oom_kill=group.oom_kill),
            pids=self.pids(zone),
        )

    def expected(self, limits: Limits) -> Limits:
        size = None if limits.max is None else limits.max // PAGE * PAGE
        minimum = limits.min // PAGE * PAGE if self.protects else 0
        return replace(limits, max=size, min=minimum)

    def create(self, zone: str, limits: Limits) -> None:
        self.failures.call("create", zone)
        if not self.there:
            raise KernelRefused(f"mkdir {PARENT}/{zone}: No such file or directory")
        self.made.setdefault(zone, FakeGroup(Limits()))
        self._write(zone, self.expected(limits))

    def change(self, zone: str, limits: Limits) -> None:
        self.failures.call("change", zone)
        group = self._known(zone)
        wanted = self.expected(limits)
        if wanted.max is not None and group.used > wanted.max:
            raise BelowUse(f"zone {zone} uses {group.used}")
        self._write(zone, wanted)

    def _write(self, zone: str, limits: Limits) -> None:
        self.made[zone].limits = limits
        self._check_promises(f"{zone} min {limits.min}")

    def _check_promises(self, what: str) -> None:
        if sum(group.limits.min for group in self.made.values()) > self.minimum:
            self.broken_promises.append(what)

    def _known(self, zone: str) -> FakeGroup:
        if zone not in self.made:
            raise NoSuchZone(f"no group {zone}")
        return self.made[zone]

    def set_soft_limits(self, zone: str, *, high: int | None, minimum: int) -> None:
        self.failures.call("set_soft_limits", zone, high, minimum)
        group = self._known(zone)
        group.limits = replace(group.limits, high=high, min=minimum)

    def reclaim(self, zone: str, size: int) -> bool:
        self.failures.call("reclaim", zone, size)
        group = self._known(zone)
        took = min(size, max(group.used - group.held, 0))
        group.used -= took
        self.on_reclaim(group)
        return took == size

    def protect_parent(self, minimum: int) -> None:
        self.failures.call("protect_parent", minimum)
        self.minimum = minimum
        self._check_promises(f"parent {minimum}")

    def parent_protection(self) -> int:
        return self.minimum

    def attach(self, zone: str, pids: Sequence[int]) -> None:
        self.failures.call("attach", zone, *pids)
        self._known(zone)
        for pid in pids:
            if pid not in self.where:
                raise NoSuchProcess(f"process {pid} ended meanwhile")
            self.where[pid] = f"{PARENT}/{zone}"

    def release(self, pids: Sequence[int], former: str | None) -> None:
        self.failures.call("release", *pids, former)
        for pid in pids:
            if pid in self.where:
                self.where[pid] = former or "/"

    def location(self, pid: int) -> str | None:
        return self.where.get(pid)

    def pids_below(self, cgroup: str) -> tuple[int, ...]:
        self.failures.call("pids_below", cgroup)
        self.on_pids()
        if not cgroup.startswith("/") or "no-such" in cgroup:
            raise NoSuchCgroup(f"there is no cgroup {cgroup}")
        return tuple(
            sorted(pid for pid, at in self.where.items() if f"{at}/".startswith(f"{cgroup}/"))
        )

    def foreign_units(self, zone: str) -> tuple[str, ...]:
        return self.units.get(zone, ())

    def kill(self, zone: str) -> None:
        self.failures.call("kill", zone)
        for pid in self.pids(zone):
            del self.where[pid]
        self.units.pop(zone, None)

    def remove(self, zone: str) -> None:
        self.failures.call("remove", zone)
        if self.pids(zone):
            raise HasMembers(f"{zone} has members")
        self.made.pop(zone, None)


class FakeUnits:
    """See UnitDriver."""

    def __init__(self, cgroups: Mapping[str, str] | None = None) -> None:
        self.failures = Failures()
        self.cgroups = dict(cgroups or {})
        """running units and their cgroups"""
        self.nodes: dict[str, frozenset[int]] = {}
        self.placed: dict[str, str] = {}
        self.on_unplace: Callable[[str], None] = lambda _: None

    def canonical(self, unit: str) -> str:
        name = unit if unit.endswith(".service") else f"{unit}.service"
        if name not in self.cgroups and name not in self.placed:
            raise NoSuchUnit(f"there is no unit {name}")
        return name

    def unit_cgroup(self, unit: str) -> str:
        if unit not in self.cgroups:
            raise NoSuchUnit(f"unit {unit} is not running")
        return self.cgroups[unit]

    def unit_nodes(self, unit: str) -> frozenset[int]:
        self.unit_cgroup(unit)
        return self.nodes.get(unit, frozenset())

    def confine_unit(self, unit: str, nodes: frozenset[int]) -> None:
        self.failures.call("confine_unit", unit, sorted(nodes))
        self.unit_cgroup(unit)
        self.nodes[unit] = nodes

    def place_unit(self, unit: str, zone: str) -> None:
        self.failures.call("place_unit", unit, zone)
        self.placed[unit] = zone

    def unplace_unit(self, unit: str) -> None:
        self.failures.call("unplace_unit", unit)
        self.placed.pop(unit, None)
        self.on_unplace(unit)


@dataclass(kw_only=True)
class World:
    """A machine of files whose groups and units are fakes, that can be started again."""

    folder: Path
    groups: FakeGroups
    units: FakeUnits | None = None
    boot: str = BOOT

    def machine(self) -> Machine:
        """Return the machine as a daemon that starts now would find it."""
        return Machine(
            root=sysroot(self.folder),
            groups=self.groups,
            units=self.units,
            store=Store(self.folder / "state"),
            ledger=Ledger(self.folder / "run", self.boot),
            manual=ManualStore(self.folder / "state"),
        )

    def add_process(
        self,
        pid: int,
        cgroup: str = "/",
        *,
        ppid: int = 1,
        start: int = 77,
        mems: str | None = None,
    ) -> None:
        """Make a process that is in a cgroup, and may use the nodes `mems`: None does not tell."""
        flags = 0x00200000 if ppid == 2 else 0
        stat = f"{pid} (work) S {ppid} 1 1 0 -1 {flags} 1 0 2 0 3 4 5 6 20 0 1 0 {start} 4096 9"
        status = f"Name:\twork\nTgid:\t{pid}\nUid:\t0\t0\t0\t0\nRssAnon:\t1024 kB"
        if mems is not None:
            status += f"\nMems_allowed_list:\t{mems}"
        write(self.folder, {f"proc/{pid}/stat": stat, f"proc/{pid}/status": status})
        self.groups.where[pid] = cgroup

    def end_process(self, pid: int) -> None:
        """End a process."""
        for name in ("stat", "status"):
            (self.folder / f"proc/{pid}/{name}").unlink()
        self.groups.where.pop(pid, None)


def make_world(
    folder: Path,
    nodes: Mapping[int, int] | None = None,
    *,
    protects: bool = True,
    units: FakeUnits | None = None,
) -> World:
    """Return a machine with nodes of these sizes; by default two of 4 GiB, two CPUs each."""
    nodes = {0: 4 * GIB, 1: 4 * GIB} if nodes is None else nodes
    for number, size in nodes.items():
        set_node(folder, number, size, nodes)
    ids = ",".join(map(str, nodes))
    write(folder, {f"{NODES}/has_normal_memory": ids, f"{NODES}/online": ids})
    return World(folder=folder, groups=FakeGroups(protects=protects), units=units)


def set_node(folder: Path, number: int, size: int, nodes: Mapping[int, int]) -> None:
    """Write the files of a node."""
    add_node(
        folder,
        number,
        {
            "meminfo": f"Node {number} MemTotal: {size >> 10} kB\nNode {number} MemFree: 512 kB",
            "cpulist": f"{2 * number}-{2 * number + 1}",
            "distance": " ".join(str(10 + 10 * abs(other - number)) for other in nodes),
        },
    )


def started(world: World, policy: Policy | None = None) -> Engine:
    """Return an engine that was started on this machine, as after the daemon's restart."""
    engine = Engine(world.machine(), lambda: policy or Policy())
    engine.start()
    return engine


def control_of(progress: Progress | None = None) -> JobControl:
    """Return what a job's work gets in hand; it changes the machine in the caller's thread."""
    return JobControl(at_once, lambda: None, progress=progress)


def run_job(engine: Engine, kind: JobKind, **parameters: Any) -> Progress:
    """Do in the caller's thread what a job of these parameters would do, to its end."""
    control = control_of()
    _, body = engine.prepare(kind, parameters)
    body(control)
    return control.progress
