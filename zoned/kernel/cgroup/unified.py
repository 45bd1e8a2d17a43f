# SPDX-License-Identifier: Apache-2.0
"""What the drivers for cgroup v2 share, with systemd and without: all but who makes and fills
groups.
"""

from __future__ import annotations

import errno
import logging
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.errors import (
    KernelRefused,
    MachineError,
    NoSuchCgroup,
    NoSuchZone,
    NotAsWritten,
    TryLater,
    ZonedError,
)
from zoned.idset import format_ids
from zoned.kernel.cgroup.files import os_errno, read_group, read_limits, round_size
from zoned.kernel.cgroup.location import locations
from zoned.kernel.cgroup.marks import mark, set_mark
from zoned.kernel.cgroup.partition import drop_exclusive, make_exclusive
from zoned.kernel.cgroup.plan import (
    Field,
    Value,
    changes,
    check_fits,
    check_written,
    fits,
    value_of,
)
from zoned.kernel.cgroup.tree import below, children, kill_tree, pids_in, wait_until
from zoned.kernel.process import find
from zoned.kernel.root import read_ids, read_int, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zoned.kernel.cgroup.tree import CgroupFs
    from zoned.kernel.root import Root
    from zoned.model.zone import Group, Limits

logger = logging.getLogger(__name__)

NEEDED = ("cpuset", "memory")

# How long a value may take to appear in the kernel's file when another process writes it.
_SETTLE_SECONDS = 2.0


class Unified(ABC):
    """Zones as children of one group of the unified hierarchy."""

    protects = True

    def __init__(self, root: Root, parent: Path, fs: CgroupFs) -> None:
        self._root = root
        self._parent = parent
        self._fs = fs

    @property
    def parent(self) -> str:
        return self._shown(self._parent)

    @abstractmethod
    def prepare(self) -> None:
        """See CgroupDriver."""

    @abstractmethod
    def _folder(self, zone: str) -> Path:
        """Return where the zone's group is or would be."""

    @abstractmethod
    def _zone_in(self, folder: Path) -> str | None:
        """Return whose group a child of the parent is, None if no zone's."""

    @abstractmethod
    def _make(self, zone: str, limits: Limits) -> bool:
        """Make the group, with or without the limits; False where there is one already."""

    @abstractmethod
    def remove(self, zone: str) -> None:
        """See CgroupDriver."""

    @abstractmethod
    def _write(self, zone: str, field: Field, value: Value) -> None:
        """Write one value of a zone's group."""

    @abstractmethod
    def _take_in(self, zone: str, pids: Sequence[int]) -> None:
        """Make processes members that were checked and are not in the zone yet."""

    def groups(self) -> tuple[Group, ...]:
        zones = filter(None, map(self._zone_in, children(self._parent)))
        found = (self.group(zone) for zone in sorted(zones))
        return tuple(group for group in found if group is not None)

    def group(self, zone: str) -> Group | None:
        folder = self._folder(zone)
        if not folder.is_dir():
            return None
        found = read_group(folder, zone=zone, path=self._shown(folder), pids=pids_in(folder))
        return replace(found, limits=_limits(folder))

    def _shown(self, folder: Path) -> str:
        return "/" + str(folder.relative_to(self._root.cgroup))

    def _existing(self, zone: str) -> Path:
        folder = self._folder(zone)
        if not folder.is_dir():
            raise NoSuchZone(f"there is no group {folder}", hint="zonectl list shows the zones")
        return folder

    def expected(self, limits: Limits) -> Limits:
        return replace(
            limits,
            max=round_size(limits.max),
            high=round_size(limits.high),
            min=round_size(limits.min) or 0,
            swap=round_size(limits.swap) if self._has("memory.swap.max", "memory.max") else None,
            mems=limits.mems or None,
            cpus=limits.cpus or None,
            exclusive_cpus=limits.exclusive_cpus
            and bool(limits.cpus)
            and self._has("cpuset.cpus.partition", "cpuset.cpus"),
        )

    def _has(self, name: str, sibling: str) -> bool:
        """Return whether groups have the file `name`; unknown is yes.

        The parent does not tell as long as its controllers are off, but any group that has
        `sibling` does.
        """
        for folder in (self._parent, *children(self._parent), *children(self._root.cgroup)):
            if (folder / sibling).exists():
                return (folder / name).exists()
        return True

    def create(self, zone: str, limits: Limits) -> None:
        self.prepare()
        wanted = self.expected(limits)
        made = self._make(zone, wanted)
        try:
            self.change(zone, limits)
            self._check(self._folder(zone), wanted, tuple(Field))
        except ZonedError:
            if made:
                self._unmake(zone)
            raise

    def _unmake(self, zone: str) -> None:
        try:
            self.remove(zone)
        except ZonedError as error:
            logger.warning("half-made zone %s could not be removed: %s", zone, error)

    def change(self, zone: str, limits: Limits) -> None:
        folder = self._existing(zone)
        wanted, current = self.expected(limits), _limits(folder)
        if Field.MAX in changes(current, wanted):
            check_fits(zone, wanted.max, read_int(folder / "memory.current"))
        try:
            self._apply(zone, folder, current, wanted)
        except ZonedError:
            self._undo(zone, folder, current)
            raise

    def _apply(self, zone: str, folder: Path, current: Limits, wanted: Limits) -> None:
        fields = changes(current, wanted)
        if current.exclusive_cpus and (Field.CPUS in fields or not wanted.exclusive_cpus):
            drop_exclusive(self._fs, folder)
        for field in fields:
            self._set(zone, folder, field, value_of(wanted, field))
        self._check(folder, wanted, fields)
        if wanted.exclusive_cpus and wanted.cpus and not _limits(folder).exclusive_cpus:
            make_exclusive(self._fs, folder, wanted.cpus)

    def _set(self, zone: str, folder: Path, field: Field, value: Value) -> None:
        """Write one value, and lift a set also where the group has members.

        The kernel empties cpuset.cpus and cpuset.mems only of groups without processes (ENOSPC;
        kernel/cgroup/cpuset.c, validate_change). So all that there is is written first, with a
        note that this stands for "not confined".
        """
        if field.is_set and value is None:
            everything = read_ids(self._parent / f"cpuset.{field}.effective") or frozenset()
            self._write(zone, field, everything)
            set_mark(folder, field, format_ids(everything))
        elif field.is_set and mark(folder, field):
            set_mark(folder, field, "")
        try:
            self._write(zone, field, value)
        except KernelRefused as error:
            if value is not None or os_errno(error) != errno.ENOSPC:
                raise

    def _check(self, folder: Path, wanted: Limits, fields: tuple[Field, ...]) -> None:
        wait_until(
            lambda: not set(fields).intersection(changes(_limits(folder), wanted)),
            _SETTLE_SECONDS,
        )
        check_written(self._shown(folder), _limits(folder), wanted, fields)
        effective = read_ids(folder / "cpuset.mems.effective")
        if Field.MEMS in fields and wanted.mems and effective not in {None, wanted.mems}:
            raise NotAsWritten(
                f"{self._shown(folder)}: cpuset.mems.effective is {format_ids(effective or ())}"
                f" instead of {format_ids(wanted.mems)}",
                hint="a node without memory, or one that a group above does not have",
            )

    def _undo(self, zone: str, folder: Path, former: Limits) -> None:
        """Write back what a group had before a change that failed half-way."""
        try:
            if not folder.is_dir():
                return
            used = read_int(folder / "memory.current")
            for field in changes(_limits(folder), former):
                # What has grown meanwhile would be killed by the former limit.
                if field is not Field.MAX or fits(former.max, used):
                    self._set(zone, folder, field, value_of(former, field))
            if former.exclusive_cpus and former.cpus:
                make_exclusive(self._fs, folder, former.cpus)
        except ZonedError as error:
            logger.warning("zone %s could not be put back as it was: %s", zone, error)

    def set_soft_limits(self, zone: str, *, high: int | None, minimum: int) -> None:
        folder = self._existing(zone)
        wanted = replace(_limits(folder), high=round_size(high), min=round_size(minimum) or 0)
        # Protection goes first: it would keep the kernel from taking back down to `high`.
        self._apply_soft(zone, folder, wanted)

    def _apply_soft(self, zone: str, folder: Path, wanted: Limits) -> None:
        different = changes(_limits(folder), wanted)
        fields = tuple(field for field in (Field.MIN, Field.HIGH) if field in different)
        for field in fields:
            self._write(zone, field, value_of(wanted, field))
        self._check(folder, wanted, fields)

    def reclaim(self, zone: str, size: int) -> bool:
        folder = self._existing(zone)
        file = folder / "memory.reclaim"
        if not file.exists():
            return self._reclaim_by_high(folder, size)
        try:
            self._fs.write(file, str(size))
        except KernelRefused as error:
            if os_errno(error) in {errno.EAGAIN, errno.EINTR}:
                return False
            raise
        return True

    def _reclaim_by_high(self, folder: Path, size: int) -> bool:
        """Take back by writing the value that memory.high has already.

        memory.reclaim came with Linux 5.19; before that, each write to memory.high makes the
        kernel reclaim down to it, and the same value changes nothing for systemd.
        """
        before, high = read_int(folder / "memory.current"), read_int(folder / "memory.high")
        if before is None or high is None or before <= high:
            return False
        self._fs.write(folder / "memory.high", str(high))
        after = read_int(folder / "memory.current")
        return after is not None and after <= max(high, before - size)

    def parent_protection(self) -> int:
        return read_int(self._parent / "memory.min") or 0

    def attach(self, zone: str, pids: Sequence[int]) -> None:
        folder = self._existing(zone)
        for pid in pids:
            find(self._root, pid)
        self._check_not_frozen(folder)
        inside = pids_in(folder)
        newcomers = [pid for pid in dict.fromkeys(pids) if pid not in inside]
        if newcomers:
            self._take_in(zone, newcomers)

    def _check_not_frozen(self, folder: Path) -> None:
        """A frozen group would stop whoever enters, without a word."""
        while folder != self._root.cgroup:
            if read_text(folder / "cgroup.freeze") == "1":
                raise TryLater(f"{folder} is frozen", hint=f"echo 0 > {folder}/cgroup.freeze")
            folder = folder.parent

    def location(self, pid: int) -> str | None:
        found = locations(self._root, pid)
        return None if found is None else found.get("")

    def pids_below(self, cgroup: str) -> tuple[int, ...]:
        folder = below(self._root.cgroup, cgroup)
        if folder is None or folder == self._root.cgroup:
            raise NoSuchCgroup(f"there is no cgroup {cgroup!r} below {self._root.cgroup}")
        return pids_in(folder)

    def kill(self, zone: str) -> None:
        folder = self._folder(zone)
        if folder.is_dir():
            kill_tree(self._fs, folder)

    def _put(self, folder: Path, pid: int) -> bool:
        """Write a process into a group; False where the group does not take it.

        Raises MachineError only where the process is not simply gone.
        """
        try:
            self._fs.write(folder / "cgroup.procs", str(pid))
        except KernelRefused as error:
            if os_errno(error) == errno.ESRCH:
                return True
            if os_errno(error) in {errno.ENOENT, errno.ENODEV, errno.EBUSY, errno.EOPNOTSUPP}:
                return False
            raise
        return True


def _limits(folder: Path) -> Limits:
    """Return a group's limits, a set that stands for "not confined" being none."""
    found = read_limits(folder)
    if found.cpus and format_ids(found.cpus) == mark(folder, Field.CPUS):
        found = replace(found, cpus=None)
    if found.mems and format_ids(found.mems) == mark(folder, Field.MEMS):
        found = replace(found, mems=None)
    return found


def controllers_of(folder: Path) -> frozenset[str]:
    """Return the controllers that a group can hand on. Raises MachineError."""
    text = read_text(folder / "cgroup.controllers")
    if text is None:
        raise MachineError(f"{folder} is no group of cgroup v2")
    return frozenset(text.split())
