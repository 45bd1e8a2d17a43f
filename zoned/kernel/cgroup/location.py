# SPDX-License-Identifier: Apache-2.0
"""Where a process is, and why it could not be put elsewhere. Source: cgroups(7)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zoned.errors import KernelThread, NoSuchProcess
from zoned.kernel.cgroup.files import os_errno
from zoned.kernel.process import find
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from zoned.errors import KernelRefused, ZonedError
    from zoned.kernel.root import Root


def is_alive(root: Root, pid: int) -> bool:
    """Return whether there is a process of that pid which has not ended."""
    try:
        find(root, pid)
    except (NoSuchProcess, KernelThread):
        return False
    return True


def attach_error(root: Root, pid: int, error: KernelRefused) -> ZonedError:
    """Return what a refused write to cgroup.procs means for the caller."""
    if os_errno(error) == errno.ESRCH or not is_alive(root, pid):
        return NoSuchProcess(f"process {pid} ended meanwhile", hint="`ps -e` tells which run")
    if os_errno(error) == errno.EINVAL:
        return KernelThread(
            f"the kernel does not let process {pid} move: {error.message}",
            hint="threads of the kernel stay where they are, and real-time programs, too",
        )
    return error


def locations(root: Root, pid: int) -> dict[str, str] | None:
    """Return controller -> cgroup of a process, "" being v2; None where there is no process."""
    text = read_text(root.proc / str(pid) / "cgroup")
    if text is None:
        return None
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        found.update(dict.fromkeys(names.split(","), path.removesuffix(" (deleted)")))
    return found


def is_below(cgroup: str, parent: str) -> bool:
    """Return whether a cgroup path is that of `parent` or of a group below it."""
    return cgroup == parent or cgroup.startswith(parent + "/")
