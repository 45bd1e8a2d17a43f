# SPDX-License-Identifier: Apache-2.0
"""Who has a file open or mapped.

Sources: proc_pid_fd(5), proc_pid_maps(5), proc_pid_map_files(5), unix(7) (SCM_RIGHTS); net/unix/
af_unix.c (unix_show_fdinfo, since Linux 5.6).

A descriptor that lies in a socket, on its way to somebody, is not seen; only that some lie there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.holdings import mapped_files, open_files, pids_meanwhile
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from zoned.kernel.root import Root


def others_have(root: Root, name: str, inode: int | None) -> bool:
    """Return whether any process but this one has a file of that name, as the kernel shows it
    (``/memfd:x``), open or mapped; with `inode` only this one.

    Raises MachineError where the kernel forbids the look.
    """
    return any(
        shown.startswith(name) and inode in {None, number}
        for pid in pids_meanwhile(root)
        if pid != os.getpid()
        for shown, number, _ in _had(root, pid)
    )


def others_are_sent_some(root: Root) -> bool:
    """Return whether descriptors, of whatever files, lie in a socket of any process but this one.

    Kernels before 5.6 do not tell: False. Raises MachineError where they forbid the look.
    """
    return any(
        _sent(link)
        for pid in pids_meanwhile(root)
        if pid != os.getpid()
        for link in open_files(root, pid)
    )


def _sent(link: Path) -> int:
    """Return how many descriptors lie in what is open behind a link in /proc."""
    try:
        if not str(link.readlink()).startswith("socket:"):
            return 0
    except (FileNotFoundError, ProcessLookupError):
        return 0
    text = read_text(link.parent.parent / "fdinfo" / link.name) or ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((int(value) for key, _, value in lines if key == "scm_fds"), 0)


def links_to(
    root: Root, name: str, inodes: Collection[int], pids: Iterable[int]
) -> dict[int, Path]:
    """Return inode -> a link in /proc to the file, for those of such files that one of the
    processes has open or mapped.

    Raises MachineError where the kernel forbids the look.
    """
    return {
        number: link
        for pid in pids
        for shown, number, link in _had(root, pid)
        if number in inodes and shown.startswith(name)
    }


def open_behind(root: Root, link: Path, inode: int) -> int | None:
    """Return a descriptor of the regular file behind a link in /proc; None where it has become
    another one, or is gone.

    Raises MachineError where the kernel forbids it.
    """
    try:
        # Opened for good only when it is known: a device or a pipe might do something then.
        found = os.open(link, os.O_PATH | os.O_CLOEXEC)
        try:
            about = os.fstat(found)
            if about.st_ino != inode or not stat.S_ISREG(about.st_mode):
                return None
            return os.open(root.proc / f"self/fd/{found}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(found)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise MachineError(f"cannot open {link}: {error.strerror}") from error


def _had(root: Root, pid: int) -> Iterator[tuple[str, int, Path]]:
    """Yield name, inode and a link in /proc of what a process has open or mapped."""
    return itertools.chain(_mapped(root, pid), _open(root, pid))


def _mapped(root: Root, pid: int) -> Iterator[tuple[str, int, Path]]:
    for folder, words in mapped_files(root, pid):
        # Links have no zeroes in front, maps may.
        start, _, end = words[0].partition("-")
        link = folder / "map_files" / f"{int(start, 16):x}-{int(end, 16):x}"
        yield words[5], int(words[4]), link


def _open(root: Root, pid: int) -> Iterator[tuple[str, int, Path]]:
    """Yield what a process has open, but for what it closes meanwhile."""
    for link in open_files(root, pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield str(link.readlink()), _inode(link), link


def _inode(link: Path) -> int:
    return link.stat().st_ino
