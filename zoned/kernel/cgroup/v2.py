# SPDX-License-Identifier: Apache-2.0
"""Zones as plain groups of cgroup v2, where no service manager owns the tree.

Zone `db` is /sys/fs/cgroup/zone/db, and its members are in the leaf `members` inside it: a group
with children that have controllers cannot hold processes itself, and a container runtime shall
be able to make its own groups inside a zone. Whatever is found in there belongs to the zone.

Source: Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint".
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, Unsupported, ZonedError
from zoned.kernel.cgroup.files import PAGE, os_errno
from zoned.kernel.cgroup.location import attach_error, is_below
from zoned.kernel.cgroup.marks import mark, set_mark
from zoned.kernel.cgroup.partition import drop_exclusive
from zoned.kernel.cgroup.plan import Field, Value, file_text
from zoned.kernel.cgroup.tree import (
    CgroupFs,
    below,
    children,
    is_name,
    own_pids,
    remove_tree,
    wait_until,
)
from zoned.kernel.cgroup.unified import NEEDED, Unified, controllers_of
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.model.zone import Limits

logger = logging.getLogger(__name__)

FILES = {
    Field.MAX: "memory.max",
    Field.HIGH: "memory.high",
    Field.MIN: "memory.min",
    Field.SWAP: "memory.swap.max",
    Field.CPUS: "cpuset.cpus",
    Field.MEMS: "cpuset.mems",
}

_MEMBERS = "members"
_ENABLE_SECONDS = 1.0

# The note on the parent's directory: which controllers were off in the root group before us.
_ENABLED = "enabled"

# What the files of a group hold that nobody has set.
_UNSET = {
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": "", "cpuset.cpus.partition": "member"},
    "memory": {"memory.max": "max", "memory.high": "max", "memory.min": "0", "memory.low": "0"},
}


class CgroupV2(Unified):
    """See CgroupDriver."""

    kind = "v2"

    def __init__(self, root: Root, parent: str = "zone", fs: CgroupFs | None = None) -> None:
        super().__init__(root, root.cgroup / parent, fs or CgroupFs())

    def _folder(self, zone: str) -> Path:
        return self._parent / zone

    def _zone_in(self, folder: Path) -> str | None:
        return folder.name if is_name(folder.name) else None

    def prepare(self) -> None:
        missing = set(NEEDED) - controllers_of(self._root.cgroup)
        if missing:
            raise Unsupported(
                f"cgroup v2 has no controller {' and '.join(sorted(missing))} here",
                hint="it may be bound to cgroup v1, or be switched off with cgroup_disable=",
            )
        made = self._fs.make(self._parent)
        try:
            self._enable_all()
        except ZonedError:
            if made:
                self._fs.remove(self._parent)
            raise

    def _enable_all(self) -> None:
        off = [name for name in NEEDED if name not in _enabled(self._root.cgroup)]
        if off:
            # Before they are switched on: a daemon that starts again must know whose doing it was.
            _remember(self._parent, off)
            self._enable(self._root.cgroup, off)
        self._enable(self._parent, [name for name in NEEDED if name not in _enabled(self._parent)])

    def _enable(self, folder: Path, names: Sequence[str]) -> None:
        """Switch controllers on for the group's children. EBUSY may pass: it is waited out."""
        refused: list[KernelRefused] = []

        def written() -> bool:
            try:
                self._fs.write(folder / "cgroup.subtree_control", _signed("+", names))
            except KernelRefused as error:
                refused[:] = [error]
                return os_errno(error) != errno.EBUSY
            refused.clear()
            return True

        if names:
            wait_until(written, _ENABLE_SECONDS)
        if refused:
            raise KernelRefused(
                refused[0].message,
                hint=f"processes in {folder} itself are in the way: move them to a group inside it",
            ) from refused[0].__cause__

    def retire(self) -> None:
        if not self._parent.is_dir() or children(self._parent) or own_pids(self._parent):
            return
        enabled = _recall(self._parent)
        remove_tree(self._fs, self._parent)
        for name in enabled:
            self._disable(name)

    def _disable(self, name: str) -> None:
        others = children(self._root.cgroup)
        if name not in _enabled(self._root.cgroup) or any(_uses(other, name) for other in others):
            return
        try:
            self._fs.write(self._root.cgroup / "cgroup.subtree_control", _signed("-", [name]))
        except KernelRefused as error:
            # A group below has passed it on meanwhile. It is theirs now.
            logger.warning("controller %s stays enabled: %s", name, error)

    def _make(self, zone: str, limits: Limits) -> bool:
        folder = self._folder(zone)
        made = self._fs.make(folder)
        self._fs.make(folder / _MEMBERS)
        return made

    def _write(self, zone: str, field: Field, value: Value) -> None:
        self._fs.write(self._folder(zone) / FILES[field], file_text(field, value))

    def protect_parent(self, minimum: int) -> None:
        self._fs.write(self._parent / "memory.min", str(-(-minimum // PAGE) * PAGE))

    def _take_in(self, zone: str, pids: Sequence[int]) -> None:
        leaf = self._folder(zone) / _MEMBERS
        self._fs.make(leaf)
        moved: list[tuple[int, str | None]] = []
        for pid in pids:
            former = self.location(pid)
            try:
                self._fs.write(leaf / "cgroup.procs", str(pid))
            except KernelRefused as error:
                for earlier, place in moved:
                    self.release([earlier], place)
                raise attach_error(self._root, pid, error) from error
            moved.append((pid, former))

    def release(self, pids: Sequence[int], former: str | None) -> None:
        place = below(self._root.cgroup, former) if former else None
        if former and is_below(former, self.parent):
            place = None
        for pid in pids:
            if place is not None and self._put(place, pid):
                continue
            if not self._put(self._root.cgroup, pid):
                raise KernelRefused(f"{self._root.cgroup} does not take process {pid}")

    def foreign_units(self, zone: str) -> tuple[str, ...]:
        return ()

    def remove(self, zone: str) -> None:
        folder = self._folder(zone)
        if folder.is_dir():
            remove_tree(self._fs, folder)
            drop_exclusive(self._fs, folder)


def _signed(sign: str, names: Iterable[str]) -> str:
    return " ".join(sign + name for name in names)


def _enabled(folder: Path) -> frozenset[str]:
    return frozenset((read_text(folder / "cgroup.subtree_control") or "").split())


def _uses(folder: Path, controller: str) -> bool:
    """Return whether somebody relies on the controller in this group."""
    unset = _UNSET[controller]
    if read_text(folder / FILES[Field.MEMS]) == (mark(folder, Field.MEMS) or None):
        # All nodes, in a group that was confined while it had processes: nobody's wish any more.
        unset = {name: value for name, value in unset.items() if name != FILES[Field.MEMS]}
    return any(read_text(folder / name) not in {None, value} for name, value in unset.items())


def _remember(folder: Path, names: Iterable[str]) -> None:
    value = " ".join(sorted({*_recall(folder), *names}))
    if not set_mark(folder, _ENABLED, value):
        logger.info("controllers %s will stay enabled: no extended attributes here", value)


def _recall(folder: Path) -> tuple[str, ...]:
    return tuple(mark(folder, _ENABLED).split())
