# SPDX-License-Identifier: Apache-2.0
"""Cgroups as directories: make, list, kill, wait, remove. The same on v1 and v2.

Source: Documentation/admin-guide/cgroup-v2.rst, "Basic Operations" and "Core Interface Files".
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from zoned.errors import BadName, HasMembers, KernelRefused, MachineError, TryLater
from zoned.kernel.cgroup.files import os_errno
from zoned.kernel.root import read_text, write_text
from zoned.model.zone import check_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05

KILL_SECONDS = 10.0
REMOVE_SECONDS = 5.0


class CgroupFs:
    """The four ways to change a cgroup file system; tests put another kernel in its place."""

    def make(self, folder: Path) -> bool:
        """Make a group; False where there is one already. Raises BadName, KernelRefused."""
        try:
            folder.mkdir()
        except FileExistsError as error:
            if folder.is_dir():
                return False
            raise BadName(
                f"{folder} is a file of the kernel's", hint="choose another name for the zone"
            ) from error
        except OSError as error:
            raise KernelRefused(f"mkdir {folder}: {error.strerror}") from error
        return True

    def remove(self, folder: Path) -> None:
        """Remove one group without children. Gone is fine. Raises KernelRefused."""
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise KernelRefused(f"rmdir {folder}: {error.strerror}") from error

    def write(self, path: Path, text: str) -> None:
        """Write one value. Raises KernelRefused."""
        write_text(path, text)

    def kill(self, pid: int, still_there: Callable[[int], bool]) -> None:
        """Send SIGKILL to the process that has this pid now, if `still_there` holds for it.

        The pidfd is taken first, so that a pid which is given to a new process meanwhile is not
        hit (pidfd_open(2), Linux 5.3).
        """
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if still_there(pid):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether `condition` came true within `seconds`; it is asked at least once."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
    return True


def is_name(name: str) -> bool:
    """Return whether a group of that name can be a zone's."""
    try:
        check_name(name)
    except BadName:
        return False
    return True


def children(folder: Path) -> tuple[Path, ...]:
    """Return the child groups by name; none where the group is gone, or is a kernel's file."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(folder / name for name in names)


def leaves_first(folder: Path) -> tuple[Path, ...]:
    """Return the group and all below it, each after its children; none where it is gone."""
    below = tuple(group for child in children(folder) for group in leaves_first(child))
    return (*below, folder) if folder.is_dir() else ()


def own_pids(folder: Path) -> tuple[int, ...]:
    """Return the processes in this very group."""
    try:
        text = read_text(folder / "cgroup.procs")
    except MachineError as error:
        # A threaded group does not list processes: the nearest domain above it does.
        if os_errno(error) == errno.EOPNOTSUPP:
            return ()
        raise
    # 0 is a process outside of our pid namespace.
    return tuple(int(word) for word in (text or "").split() if word != "0")


def pids_in(folder: Path) -> tuple[int, ...]:
    """Return the processes in the group and all below it, in rising order."""
    return tuple(sorted({pid for group in leaves_first(folder) for pid in own_pids(group)}))


def below(mount: Path, cgroup: str) -> Path | None:
    """Return the directory of a cgroup path as /proc/PID/cgroup shows it, None if there is none."""
    parts = PurePosixPath(cgroup).parts
    if parts[:1] != ("/",) or ".." in parts:
        return None
    folder = mount.joinpath(*parts[1:])
    return folder if folder.is_dir() else None


def check_empty(*folders: Path) -> None:
    """Raises HasMembers where a process is in one of the groups or below it."""
    for folder in folders:
        members = pids_in(folder)
        if members:
            raise HasMembers(
                f"{folder} has {len(members)} members, e.g. process {members[0]}",
                hint="move them out first, or have them killed",
            )


def remove_tree(fs: CgroupFs, folder: Path, seconds: float = REMOVE_SECONDS) -> None:
    """Remove a group and its children, leaves first. Gone is fine.

    The kernel answers EBUSY for a moment after the last process left; that is waited out.

    Raises HasMembers before anything is removed, KernelRefused.
    """
    check_empty(folder)
    for group in leaves_first(folder):
        _remove_one(fs, group, seconds)


def _remove_one(fs: CgroupFs, group: Path, seconds: float) -> None:
    refused: list[KernelRefused] = []

    def gone() -> bool:
        try:
            fs.remove(group)
        except KernelRefused as error:
            if os_errno(error) != errno.EBUSY:
                raise
            refused[:] = [error]
            return bool(own_pids(group))
        refused.clear()
        return True

    wait_until(gone, seconds)
    if refused:
        members = own_pids(group)
        if members:
            raise HasMembers(f"process {members[0]} entered {group} meanwhile") from refused[0]
        raise refused[0]


def kill_tree(fs: CgroupFs, folder: Path, seconds: float = KILL_SECONDS) -> None:
    """Kill every process in the group and below it, and wait until all are gone.

    Raises TryLater where some remain, e.g. in uninterruptible sleep.
    """

    def empty() -> bool:
        members = pids_in(folder)
        if members:
            _kill_all(fs, folder, members)
        return not members

    if not wait_until(empty, seconds):
        left = ", ".join(str(pid) for pid in pids_in(folder))
        raise TryLater(f"{folder} still has processes {left} after {seconds:.0f} s")


def _kill_all(fs: CgroupFs, folder: Path, members: tuple[int, ...]) -> None:
    # cgroup.kill came with Linux 5.14 and misses no process that forks meanwhile.
    if (folder / "cgroup.kill").exists():
        fs.write(folder / "cgroup.kill", "1")
        return
    for pid in members:
        fs.kill(pid, lambda found: found in pids_in(folder))
