# SPDX-License-Identifier: Apache-2.0
"""Plain groups of cgroup v2 kept off nodes: the directories beside the one of the zones.

Source: Documentation/admin-guide/cgroup-v2.rst, "Cpuset Interface Files".
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, NotAsWritten, Unsupported
from zoned.idset import format_ids
from zoned.kernel.cgroup.fence import Loose, Outsider, is_ours_alone, loose_in, own_group
from zoned.kernel.cgroup.files import os_errno
from zoned.kernel.cgroup.location import is_below
from zoned.kernel.cgroup.marks import mark, set_mark
from zoned.kernel.cgroup.plan import Field
from zoned.kernel.cgroup.tree import CgroupFs, children
from zoned.kernel.root import read_ids

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

MEMS = "cpuset.mems"
_EFFECTIVE = "cpuset.mems.effective"
_GONE = frozenset({errno.ENOENT, errno.ENODEV})


class FenceV2:
    """See FenceDriver. `parent` is the directory of the zones, whose groups are no outsiders."""

    def __init__(self, root: Root, parent: str = "zone", fs: CgroupFs | None = None) -> None:
        self._root = root
        self._parent = root.cgroup / parent
        self._fs = fs or CgroupFs()

    def nodes(self) -> frozenset[int]:
        # The kernel takes every possible node here, and what becomes of a group follows the nodes
        # that come and go (kernel/cgroup/cpuset.c: cpuset_bind, hotplug_update_tasks).
        possible = read_ids(self._root.sys / "devices/system/node/possible")
        return possible or read_ids(self._root.cgroup / _EFFECTIVE) or frozenset()

    def outsiders(self) -> tuple[Outsider, ...]:
        own = own_group(self._root) or "/"
        groups = (folder for folder in children(self._root.cgroup) if folder != self._parent)
        return tuple(
            self._look(folder, holds_daemon=holds)
            for folder in groups
            if not ((holds := is_below(own, f"/{folder.name}")) and self._is_exempt(folder))
        )

    def _is_exempt(self, folder: Path) -> bool:
        """Return whether a group that holds this process holds nobody else."""
        return is_ours_alone(self._root, folder)

    def _look(self, folder: Path, *, holds_daemon: bool) -> Outsider:
        written = read_ids(folder / MEMS)
        own = written or frozenset()
        if own and format_ids(own) == mark(folder, Field.MEMS):
            own = frozenset()
        return Outsider(
            name=f"/{folder.name}",
            own=own,
            written=written,
            effective=read_ids(folder / _EFFECTIVE),
            holds_daemon=holds_daemon,
        )

    def confine(self, name: str, nodes: frozenset[int]) -> None:
        folder = self._folder(name)
        self._write(folder, nodes)
        if mark(folder, Field.MEMS):
            set_mark(folder, Field.MEMS, "")

    def lift(self, name: str, former: frozenset[int]) -> None:
        folder = self._folder(name)
        if (read_ids(folder / MEMS) or frozenset()) == former:
            return
        if former or not self._empty(folder):
            self._write(folder, former or self.nodes())
            if not former:
                set_mark(folder, Field.MEMS, format_ids(self.nodes()))

    def loose(self) -> Loose:
        return loose_in(self._root, self._root.cgroup)

    def watched(self) -> tuple[Path, ...]:
        mount = self._root.cgroup
        groups = (folder / MEMS for folder in children(mount) if folder != self._parent)
        return (mount, *(file for file in groups if file.exists()))

    def _folder(self, name: str) -> Path:
        return self._root.cgroup / name.lstrip("/")

    def _empty(self, folder: Path) -> bool:
        """Take the node set off a group; False where the kernel refuses, for its processes."""
        try:
            self._fs.write(folder / MEMS, "\n")
        except KernelRefused as error:
            if os_errno(error) == errno.ENOSPC:
                return False
            if os_errno(error) not in _GONE:
                raise
        return True

    def _write(self, folder: Path, nodes: frozenset[int]) -> None:
        try:
            self._fs.write(folder / MEMS, format_ids(nodes))
        except KernelRefused as error:
            if os_errno(error) not in _GONE:
                raise
            if folder.is_dir():
                raise Unsupported(
                    f"{folder} has no {MEMS}", hint="the root group does not hand on cpuset"
                ) from error
            return
        found = read_ids(folder / MEMS)
        if found not in {None, nodes}:
            raise NotAsWritten(
                f"{folder / MEMS} is {format_ids(found or ())!r} instead of {format_ids(nodes)!r}"
            )
