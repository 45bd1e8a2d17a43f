# SPDX-License-Identifier: Apache-2.0
"""Moving all of a process's pages with one call of the kernel."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zoned.errors import NoSuchProcess
from zoned.kernel.root import read_ids
from zoned.kernel.syscalls import migrate_pages

if TYPE_CHECKING:
    from zoned.kernel.root import Root

# What migrate_pages(2) answers where it cannot do anything useful here: no such system call
# (a kernel without NUMA), a target that this process may not use, no memory there.
_NOT_NOW = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ENOMEM, errno.ENODEV})


def move_all_pages(root: Root, pid: int, nodes: frozenset[int]) -> int:
    """Move the process's pages that lie elsewhere to `nodes`; return how many stayed behind.

    Attaching to a cpuset moves pages too, but up to Linux 6.12 it does so while it holds the lock
    of all cgroups (kernel/cgroup/cpuset.c, cpuset_migrate_mm), so the bulk goes first. What cannot
    be moved here is left to that pass.

    Raises NoSuchProcess.
    """
    every = read_ids(root.sys / "devices/system/node/has_memory")
    if every is None or not every - nodes:
        return 0
    try:
        return migrate_pages(pid, every - nodes, nodes)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise NoSuchProcess(f"process {pid} ended meanwhile") from error
        if error.errno in _NOT_NOW:
            return 0
        raise
