# SPDX-License-Identifier: Apache-2.0
"""CPUs for one group alone: cpuset partitions of cgroup v2.

A write to cpuset.cpus.partition succeeds also where the partition is not valid, and the reason
stands in the file afterwards; so the file is always read back.

Where cpuset.cpus.exclusive exists the partition may be "remote": every group on the way down
names the CPUs there, and no ancestor need be a partition itself (Linux kernel commit 181c8e091aae
"cgroup/cpuset: Introduce remote partition" (in v6.7)). Before that the parent has to be a
partition root, which would take the CPUs of all zones away from the rest of the system: zoned
does not make it one, and tells the kernel's reason instead.

Source: Documentation/admin-guide/cgroup-v2.rst, "Cpuset Interface Files".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, Unsupported
from zoned.idset import format_ids
from zoned.kernel.cgroup.files import partition_is_valid
from zoned.kernel.cgroup.tree import children
from zoned.kernel.root import read_ids, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.cgroup.tree import CgroupFs

logger = logging.getLogger(__name__)

_PARTITION = "cpuset.cpus.partition"
_EXCLUSIVE = "cpuset.cpus.exclusive"


def make_exclusive(fs: CgroupFs, folder: Path, cpus: frozenset[int]) -> None:
    """Make the group a partition root on `cpus`. Its parent is a child of the root group.

    Raises Unsupported or KernelRefused with the kernel's own words; all is undone then.
    """
    try:
        if (folder / _EXCLUSIVE).exists():
            _share_down(fs, folder.parent, cpus)
            fs.write(folder / _EXCLUSIVE, format_ids(cpus))
        fs.write(folder / _PARTITION, "root")
        state = read_text(folder / _PARTITION)
        if not partition_is_valid(state):
            raise Unsupported(
                f"{folder} cannot have CPUs {format_ids(cpus)} for itself: {state}",
                hint="another group has these CPUs too, none would be left, or the kernel"
                " is older than 6.7",
            )
    except (KernelRefused, Unsupported):
        drop_exclusive(fs, folder)
        raise


def drop_exclusive(fs: CgroupFs, folder: Path) -> None:
    """Give the group's CPUs back to all. No partition is fine; a refusal is only logged."""
    try:
        if read_text(folder / _PARTITION) not in {None, "member"}:
            fs.write(folder / _PARTITION, "member")
        if read_text(folder / _EXCLUSIVE):
            fs.write(folder / _EXCLUSIVE, "\n")
        _share_down(fs, folder.parent, frozenset())
    except KernelRefused as error:
        logger.warning("exclusive CPUs of %s stay as they are: %s", folder, error)


def _share_down(fs: CgroupFs, parent: Path, more: frozenset[int]) -> None:
    """Have the parent name the CPUs that its children have for themselves, and `more`."""
    named = read_ids(parent / _EXCLUSIVE)
    if named is None:
        return
    wanted = more.union(*(read_ids(child / _EXCLUSIVE) or () for child in children(parent)))
    if wanted != named:
        fs.write(parent / _EXCLUSIVE, format_ids(wanted) or "\n")
