# SPDX-License-Identifier: Apache-2.0
"""What a process has mapped, and where.

Sources: proc_pid_maps(5); names of what is no file: mm/shmem.c, mm/memfd.c, ipc/shm.c,
fs/hugetlbfs/inode.c, fs/aio.c of the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.errors import NoSuchProcess
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from zoned.kernel.root import Root

# They have an inode and a path, but the kernel made both up.
_NO_FILES = ("/dev/zero (deleted)", "/SYSV", "/memfd:", "/anon_hugepage", "/[aio]")
_VSYSCALL = "[vsyscall]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A range of a process's addresses, all mapped alike."""

    start: int
    end: int
    """the first address that is no longer part of it; both are multiples of the page size"""
    executable: bool
    shared: bool
    """MAP_SHARED: what the process writes there, others see"""
    file: bool
    """of a file, also one on tmpfs or hugetlbfs; memory that only looks like one is none"""
    name: str
    """as the kernel shows it: a path, ``[heap]``, or empty"""


def mappings(root: Root, pid: int) -> tuple[Mapping, ...]:
    """Return the mappings of the process in ascending order.

    ``[vsyscall]`` is left out: it is above all addresses of the process, and not its own. Of a
    process that maps and unmaps at the same time the list is no snapshot.

    Raises NoSuchProcess also for one that has ended and only waits for its parent, and for a
    thread of the kernel: neither has memory. Raises MachineError where the kernel forbids the look.
    """
    text = read_text(root.proc / str(pid) / "maps")
    if not text:
        raise NoSuchProcess(f"there is no process {pid} with memory of its own")
    # Not splitlines: a path may hold any of the other characters that end a line.
    found = (_mapping(line) for line in text.split("\n"))
    return tuple(mapping for mapping in found if mapping.name != _VSYSCALL)


def _mapping(line: str) -> Mapping:
    addresses, access, _, _, inode, *rest = line.split(None, 5)
    start, _, end = addresses.partition("-")
    name = rest[0] if rest else ""
    return Mapping(
        start=int(start, 16),
        end=int(end, 16),
        executable=access[2] == "x",
        shared=access[3] == "s",
        file=inode != "0" and name.startswith("/") and not name.startswith(_NO_FILES),
        name=name,
    )
