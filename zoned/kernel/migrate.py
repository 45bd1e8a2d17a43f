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


def move_all_pages(
    root: Root, pid: int, nodes: frozenset[int], sources: frozenset[int] | None = None
) -> int:
    """Move the process's pages on `sources` (else: on any other node) to `nodes`.

    Return how many stayed behind. Shared pages move too. Raises NoSuchProcess.
    """
    every = read_ids(root.sys / "devices/system/node/has_memory")
    wrong = (every or frozenset()) - nodes
    if sources is not None:
        wrong &= sources
    if not wrong:
        return 0
    try:
        return migrate_pages(pid, wrong, nodes)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise NoSuchProcess(f"process {pid} ended meanwhile") from error
        if error.errno in _NOT_NOW:
            return 0
        raise
