# SPDX-License-Identifier: Apache-2.0
"""Who has a file open or mapped. Sources: proc_pid_fd(5), proc_pid_maps(5).

A descriptor that lies in a socket, on its way to somebody, is not seen.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.process import all_pids
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned.kernel.root import Root


def others_have(root: Root, name: str, inode: int | None) -> bool:
    """Return whether any process but this one has a file of that name, as the kernel shows it
    (``/memfd:x``), open or mapped; with `inode` only this one.

    Raises MachineError where the kernel forbids the look.
    """
    return any(
        shown.startswith(name) and inode in {None, number}
        for pid in all_pids(root)
        if pid != os.getpid()
        for shown, number in itertools.chain(_mapped(root, pid), _open(root, pid))
    )


def _mapped(root: Root, pid: int) -> Iterator[tuple[str, int]]:
    # Not splitlines: a path may hold any of the other characters that end a line.
    for line in (read_text(root.proc / str(pid) / "maps") or "").split("\n"):
        words = line.split(None, 5)
        if len(words) == 6:
            yield words[5], int(words[4])


def _open(root: Root, pid: int) -> Iterator[tuple[str, int]]:
    """Yield what a process has open, but for what it closes meanwhile."""
    try:
        for link in (root.proc / str(pid) / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield str(link.readlink()), _inode(link)
    except (FileNotFoundError, ProcessLookupError):
        return
    except OSError as error:
        raise MachineError(f"cannot see what process {pid} has open: {error.strerror}") from error


def _inode(link: Path) -> int:
    return link.stat().st_ino
