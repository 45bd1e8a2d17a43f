# SPDX-License-Identifier: Apache-2.0
"""Zones on cgroup v1: a directory in the cpuset hierarchy and one in the memory hierarchy.

Not everything can be had here: there is no hard protection (the soft limit only says who is
reclaimed from first), no memory.high, no pressure, and a group always has CPUs and nodes.

Source: Documentation/admin-guide/cgroup-v1/cpusets.rst and memory.rst.
"""

from __future__ import annotations

import errno
import functools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.errors import (
    BelowUse,
    KernelRefused,
    NoSuchCgroup,
    NoSuchZone,
    Unsupported,
    ZonedError,
)
from zoned.idset import format_ids
from zoned.kernel.cgroup.files import (
    os_errno,
    read_by_node_v1,
    read_keyed,
    read_size,
    round_size,
)
from zoned.kernel.cgroup.location import attach_error, is_below, locations
from zoned.kernel.cgroup.mounts import cgroup_mounts
from zoned.kernel.cgroup.plan import Field, changes, check_fits, check_written, is_lower
from zoned.kernel.cgroup.tree import (
    CgroupFs,
    below,
    check_empty,
    children,
    is_name,
    kill_tree,
    pids_in,
    remove_tree,
)
from zoned.kernel.process import find
from zoned.kernel.root import read_ids, read_int, read_text
from zoned.model.zone import Events, Group, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zoned.kernel.root import Root

logger = logging.getLogger(__name__)

_CPUSET, _MEMORY = "cpuset", "memory"
_LIMIT, _MEMSW = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
_SOFT = "memory.soft_limit_in_bytes"


class CgroupV1:
    """See CgroupDriver."""

    kind = "v1"
    protects = False

    def __init__(self, root: Root, parent: str = "zone", fs: CgroupFs | None = None) -> None:
        self._root = root
        self._name = parent
        self._fs = fs or CgroupFs()

    @property
    def parent(self) -> str:
        return f"/{self._name}"

    @functools.cached_property
    def _mounts(self) -> dict[str, Path]:
        """Return controller -> where it is mounted; both may be in one place."""
        found = cgroup_mounts(self._root).v1
        missing = {_CPUSET, _MEMORY} - found.keys()
        if missing:
            raise Unsupported(f"cgroup v1 has no hierarchy for {' and '.join(sorted(missing))}")
        return {name: found[name] for name in (_CPUSET, _MEMORY)}

    def _top(self, controller: str) -> Path:
        return self._mounts[controller] / self._name

    def _folders(self, zone: str = "") -> tuple[Path, ...]:
        """Return the group's directories, or the parent's: one where both are mounted together."""
        places = (self._top(_CPUSET) / zone, self._top(_MEMORY) / zone)
        return tuple(dict.fromkeys(places))

    def prepare(self) -> None:
        for folder in self._folders():
            made = self._fs.make(folder)
            hierarchy = folder / "memory.use_hierarchy"
            if made and read_text(hierarchy) == "0":
                self._fs.write(hierarchy, "1")
        self._widen_top()

    def _widen_top(self) -> None:
        """Give the parent all CPUs and nodes: v1 does not add those that appear later."""
        for name in ("cpuset.cpus", "cpuset.mems"):
            everything = read_ids(self._mounts[_CPUSET] / name) or frozenset()
            if not everything <= (read_ids(self._top(_CPUSET) / name) or frozenset()):
                self._fs.write(self._top(_CPUSET) / name, format_ids(everything))

    def retire(self) -> None:
        if not any(children(folder) for folder in self._folders()):
            for folder in self._folders():
                remove_tree(self._fs, folder)

    def groups(self) -> tuple[Group, ...]:
        zones = {child.name for folder in self._folders() for child in children(folder)}
        found = (self.group(zone) for zone in sorted(filter(is_name, zones)))
        return tuple(group for group in found if group is not None)

    def group(self, zone: str) -> Group | None:
        memory = self._top(_MEMORY) / zone
        if not any(folder.is_dir() for folder in self._folders(zone)):
            return None
        stat = read_keyed(memory / "memory.stat")
        used, with_swap = self._used(zone), read_int(memory / "memory.memsw.usage_in_bytes")
        return Group(
            zone=zone,
            path=f"{self.parent}/{zone}",
            limits=self._limits(zone),
            effective_mems=read_ids(self._top(_CPUSET) / zone / "cpuset.effective_mems"),
            used=used,
            anon=stat.get("total_rss"),
            peak=read_int(memory / "memory.max_usage_in_bytes"),
            swap_used=max(with_swap - used, 0) if with_swap is not None and used else None,
            by_node=read_by_node_v1(memory / "memory.numa_stat"),
            events=Events(
                max=_limit_hits(memory),
                oom_kill=read_keyed(memory / "memory.oom_control").get("oom_kill"),
            ),
            pids=self._pids(zone),
        )

    def _used(self, zone: str) -> int | None:
        return read_int(self._top(_MEMORY) / zone / "memory.usage_in_bytes")

    def _pids(self, zone: str) -> tuple[int, ...]:
        return tuple(sorted({pid for folder in self._folders(zone) for pid in pids_in(folder)}))

    def _limits(self, zone: str) -> Limits:
        memory, cpuset = self._top(_MEMORY) / zone, self._top(_CPUSET) / zone
        limit, with_swap = read_size(memory / _LIMIT), read_size(memory / _MEMSW)
        return Limits(
            max=limit,
            swap=None if limit is None or with_swap is None else with_swap - limit,
            mems=read_ids(cpuset / "cpuset.mems") or None,
            cpus=read_ids(cpuset / "cpuset.cpus") or None,
        )

    def expected(self, limits: Limits) -> Limits:
        top = self._mounts[_CPUSET]
        size = round_size(limits.max)
        # One file limits memory and swap together, so without a limit on memory there is none.
        has_swap = size is not None and (self._mounts[_MEMORY] / _MEMSW).exists()
        return Limits(
            max=size,
            swap=round_size(limits.swap) if has_swap else None,
            mems=limits.mems or read_ids(top / "cpuset.mems"),
            cpus=limits.cpus or read_ids(top / "cpuset.cpus"),
        )

    def create(self, zone: str, limits: Limits) -> None:
        self.prepare()
        made: list[Path] = []
        try:
            made += [folder for folder in self._folders(zone) if self._fs.make(folder)]
            # Attaching moves no pages unless this was set before (cpusets.rst, section 1.8).
            self._fs.write(self._top(_CPUSET) / zone / "cpuset.memory_migrate", "1")
            self.change(zone, limits)
        except ZonedError:
            self._unmake(made)
            raise

    def _unmake(self, folders: list[Path]) -> None:
        try:
            check_empty(*folders)
            for folder in folders:
                remove_tree(self._fs, folder)
        except ZonedError as error:
            logger.warning("half-made %s could not be removed: %s", folders, error)

    def change(self, zone: str, limits: Limits) -> None:
        self._check_exists(zone)
        wanted, current = self.expected(limits), self._limits(zone)
        if Field.MAX in changes(current, wanted):
            check_fits(zone, wanted.max, self._used(zone))
        try:
            self._widen_top()
            self._apply(zone, current, wanted)
            self._write_soft(zone, limits.min)
        except ZonedError:
            self._undo(zone, current)
            raise

    def _check_exists(self, zone: str) -> None:
        if not all(folder.is_dir() for folder in self._folders(zone)):
            raise NoSuchZone(f"there is no group of zone {zone!r}")

    def _apply(self, zone: str, current: Limits, wanted: Limits) -> None:
        cpuset = self._top(_CPUSET) / zone
        fields = changes(current, wanted)
        if {Field.MAX, Field.SWAP} & set(fields):
            self._write_sizes(zone, current, wanted)
        if Field.CPUS in fields:
            self._fs.write(cpuset / "cpuset.cpus", format_ids(wanted.cpus or ()))
        if Field.MEMS in fields:
            self._fs.write(cpuset / "cpuset.mems", format_ids(wanted.mems or ()))
        check_written(f"{self.parent}/{zone}", self._limits(zone), wanted, fields)

    def _write_sizes(self, zone: str, current: Limits, wanted: Limits) -> None:
        """Write the limit and the one for memory and swap, which may never be the smaller one."""
        memory = self._top(_MEMORY) / zone
        files = [(_LIMIT, wanted.max)]
        if (memory / _MEMSW).exists():
            before, after = _with_swap(current), _with_swap(wanted)
            files.insert(1 if is_lower(after, before) else 0, (_MEMSW, after))
        for name, size in files:
            self._write_size(zone, memory / name, size)

    def _write_size(self, zone: str, path: Path, size: int | None) -> None:
        try:
            self._fs.write(path, "-1" if size is None else str(size))
        except KernelRefused as error:
            if os_errno(error) == errno.EBUSY:
                raise BelowUse(
                    f"zone {zone!r}: {error.message}", hint="the old limit stands; make room first"
                ) from error
            raise

    def _write_soft(self, zone: str, minimum: int) -> None:
        """Say from where on the zone is reclaimed from first. 0 would be "always": that is -1."""
        path = self._top(_MEMORY) / zone / _SOFT
        wanted = round_size(minimum) or None
        if path.exists() and read_size(path) != wanted:
            self._fs.write(path, "-1" if wanted is None else str(wanted))

    def _undo(self, zone: str, former: Limits) -> None:
        """Write back what a group had before a change that failed half-way."""
        try:
            # A new group had no CPUs and nodes, which cannot be written; it goes away as a whole.
            now = self._limits(zone)
            goal = replace(former, cpus=former.cpus or now.cpus, mems=former.mems or now.mems)
            self._apply(zone, now, goal)
        except ZonedError as error:
            logger.warning("zone %s could not be put back as it was: %s", zone, error)

    def set_soft_limits(self, zone: str, *, high: int | None, minimum: int) -> None:
        self._check_exists(zone)
        self._write_soft(zone, minimum)

    def reclaim(self, zone: str, size: int) -> bool:
        """See CgroupDriver. A limit that cannot be met is refused and kills nobody."""
        self._check_exists(zone)
        path = self._top(_MEMORY) / zone / _LIMIT
        used, former = self._used(zone), read_int(path)
        if used is None or former is None:
            return False
        try:
            self._fs.write(path, str(max(used - size, 0)))
        except KernelRefused as error:
            if os_errno(error) in {errno.EBUSY, errno.EINTR}:
                return False
            raise
        self._fs.write(path, str(former))
        return True

    def protect_parent(self, minimum: int) -> None:
        """Do nothing: there is no protection on v1."""

    def parent_protection(self) -> int:
        return 0

    def attach(self, zone: str, pids: Sequence[int]) -> None:
        self._check_exists(zone)
        for pid in pids:
            find(self._root, pid)
        moved: list[tuple[int, str | None]] = []
        for pid in dict.fromkeys(pids):
            moved.append((pid, self.location(pid)))
            try:
                self._enter(zone, pid)
            except KernelRefused as error:
                for earlier, place in moved:
                    self.release([earlier], place)
                raise attach_error(self._root, pid, error) from error

    def _enter(self, zone: str, pid: int) -> None:
        for folder in self._folders(zone):
            if pid not in pids_in(folder):
                self._fs.write(folder / "cgroup.procs", str(pid))

    def release(self, pids: Sequence[int], former: str | None) -> None:
        for name, mount in self._mounts.items():
            path = _path_for(name, former or "/")
            place = None if is_below(path, self.parent) else below(mount, path)
            for pid in pids:
                self._leave(mount, place or mount, pid)

    def _leave(self, mount: Path, place: Path, pid: int) -> None:
        for target in (place, mount):
            try:
                self._fs.write(target / "cgroup.procs", str(pid))
            except KernelRefused as error:
                if os_errno(error) == errno.ESRCH:
                    return
                if target == mount:
                    raise
                logger.info("process %d goes to the root group: %s", pid, error)
            else:
                return

    def location(self, pid: int) -> str | None:
        """Return the path that both hierarchies agree on, else one line ``controller:path`` each.

        `release` takes either.
        """
        found = locations(self._root, pid)
        if found is None:
            return None
        paths = {name: found.get(name, "/") for name in (_CPUSET, _MEMORY)}
        if len(set(paths.values())) == 1:
            return paths[_MEMORY]
        return "\n".join(f"{name}:{path}" for name, path in paths.items())

    def pids_below(self, cgroup: str) -> tuple[int, ...]:
        places = [below(mount, _path_for(name, cgroup)) for name, mount in self._mounts.items()]
        found = [place for place in places if place not in {None, *self._mounts.values()}]
        if not found:
            raise NoSuchCgroup(f"there is no cgroup {cgroup!r} for memory or cpuset")
        return tuple(sorted({pid for place in found if place for pid in pids_in(place)}))

    def foreign_units(self, zone: str) -> tuple[str, ...]:
        return ()

    def kill(self, zone: str) -> None:
        for folder in self._folders(zone):
            kill_tree(self._fs, folder)

    def remove(self, zone: str) -> None:
        # Both are looked at first, so that not one is removed and the other stays.
        check_empty(*self._folders(zone))
        for folder in self._folders(zone):
            remove_tree(self._fs, folder)


def _with_swap(limits: Limits) -> int | None:
    """Return the limit on memory and swap together."""
    return None if limits.max is None or limits.swap is None else limits.max + limits.swap


def _limit_hits(memory: Path) -> int | None:
    """Return how often a limit was met: without swap both are equal, and one of them counts."""
    alone = read_int(memory / "memory.failcnt")
    with_swap = read_int(memory / "memory.memsw.failcnt")
    return None if alone is None else alone + (with_swap or 0)


def _path_for(controller: str, location: str) -> str:
    """Return the path of one hierarchy in what `location` gave."""
    for line in location.splitlines():
        name, colon, path = line.partition(":")
        if colon and name == controller:
            return path
    return location if location.startswith("/") else "/"
