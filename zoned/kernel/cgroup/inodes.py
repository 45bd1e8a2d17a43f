# SPDX-License-Identifier: Apache-2.0
"""Which cgroup an inode number means: the kernel tells of a page only that of its group.

Source: Documentation/admin-guide/mm/pagemap.rst (kpagecgroup).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.cgroup.escape import parent_slice, zone_of_slice
from zoned.kernel.cgroup.mounts import cgroup_mounts
from zoned.kernel.cgroup.tree import is_name
from zoned.kernel.cgroup.unified import controllers_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from zoned.kernel.root import Root


def cgroup_paths(root: Root) -> Mapping[int, str]:
    """Return inode -> path of every group that memory can be charged to, the top one being ``/``.

    Empty where no hierarchy has the memory controller. Groups that end meanwhile are left out.
    """
    mount = _memory_mount(root)
    return {} if mount is None else dict(_walk(mount))


def zone_of_path(path: str, parent: str = "zone") -> str | None:
    """Return the zone that a group is of or in, None if it is in none. `parent` has all zones."""
    first, _, rest = path.removeprefix("/").partition("/")
    name = rest.partition("/")[0]
    if first == parent_slice(parent):
        return zone_of_slice(parent, name)
    return name if first == parent and is_name(name) else None


def _memory_mount(root: Root) -> Path | None:
    mounts = cgroup_mounts(root)
    if "memory" in mounts.v1:
        return mounts.v1["memory"]
    for mount in sorted(mounts.unified, key=lambda each: each != root.cgroup):
        try:
            if "memory" in controllers_of(mount):
                return mount
        except MachineError:
            continue
    return None


def _walk(mount: Path) -> Iterator[tuple[int, str]]:
    waiting = [(mount, "/")]
    while waiting:
        folder, path = waiting.pop()
        try:
            yield folder.stat().st_ino, path
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # removed meanwhile
            continue
        waiting += [(folder / name, f"{path.rstrip('/')}/{name}") for name in names]
