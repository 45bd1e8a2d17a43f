# SPDX-License-Identifier: Apache-2.0
"""Groups of cgroup v1 kept off nodes: all of the cpuset hierarchy but the zones.

Here a group always has its nodes written down, and its children's must be among them; so what is
taken away is taken from the deepest groups first, and given back to the highest first.

Source: Documentation/admin-guide/cgroup-v1/cpusets.rst.
"""

from __future__ import annotations

import errno
import functools
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, Unsupported
from zoned.idset import format_ids
from zoned.kernel.cgroup.fence import Loose, Outsider, is_ours_alone, loose_in, own_group
from zoned.kernel.cgroup.files import os_errno
from zoned.kernel.cgroup.location import is_below
from zoned.kernel.cgroup.mounts import cgroup_mounts
from zoned.kernel.cgroup.tree import CgroupFs, children, leaves_first
from zoned.kernel.root import read_ids, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned.kernel.root import Root

_CPUSET = "cpuset"
_MEMS, _EFFECTIVE = "cpuset.mems", "cpuset.effective_mems"
_MIGRATE = "cpuset.memory_migrate"
_GONE = frozenset({errno.ENOENT, errno.ENODEV})


class FenceV1:
    """See FenceDriver."""

    def __init__(self, root: Root, parent: str = "zone", fs: CgroupFs | None = None) -> None:
        self._root = root
        self._name = parent
        self._fs = fs or CgroupFs()

    @functools.cached_property
    def _mount(self) -> Path:
        found = cgroup_mounts(self._root).v1.get(_CPUSET)
        if found is None:
            raise Unsupported("cgroup v1 has no hierarchy for cpuset")
        return found

    def nodes(self) -> frozenset[int]:
        return read_ids(self._mount / _MEMS) or frozenset()

    def outsiders(self) -> tuple[Outsider, ...]:
        return tuple(self._look())

    def _look(self) -> Iterator[Outsider]:
        own = own_group(self._root, _CPUSET) or "/"
        for top in children(self._mount):
            holds = is_below(own, f"/{top.name}")
            if top.name == self._name or (holds and is_ours_alone(self._root, top)):
                continue
            for folder in leaves_first(top):
                nodes = read_ids(folder / _MEMS)
                # Without nodes it cannot have processes.
                if nodes:
                    name = f"/{folder.relative_to(self._mount)}"
                    yield Outsider(
                        name=name,
                        own=nodes,
                        written=nodes,
                        effective=read_ids(folder / _EFFECTIVE),
                        holds_daemon=is_below(own, name),
                    )

    def confine(self, name: str, nodes: frozenset[int]) -> None:
        migrate = self._folder(name) / _MIGRATE
        # Pages move only where this is set before the nodes are written.
        moves = read_text(migrate) != "0"
        if not moves:
            self._write(migrate, "1")
        try:
            self._write(self._folder(name) / _MEMS, format_ids(nodes))
        finally:
            if not moves:
                self._write(migrate, "0")

    def lift(self, name: str, former: frozenset[int]) -> None:
        # A node that went away meanwhile cannot be given back.
        there = former & self.nodes() or self.nodes()
        if read_ids(self._folder(name) / _MEMS) != there:
            self._write(self._folder(name) / _MEMS, format_ids(there))

    def loose(self) -> Loose:
        return loose_in(self._root, self._mount)

    def watched(self) -> tuple[Path, ...]:
        tops = (top for top in children(self._mount) if top.name != self._name)
        files = (folder / _MEMS for top in tops for folder in leaves_first(top))
        return (self._mount, *(file for file in files if file.exists()))

    def _folder(self, name: str) -> Path:
        return self._mount / name.lstrip("/")

    def _write(self, file: Path, text: str) -> None:
        try:
            self._fs.write(file, text)
        except KernelRefused as error:
            if os_errno(error) not in _GONE or file.parent.is_dir():
                raise
