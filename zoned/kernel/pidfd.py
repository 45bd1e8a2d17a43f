# SPDX-License-Identifier: Apache-2.0
"""Watching processes for their end, without reading anything. Source: pidfd_open(2)."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from zoned.kernel.process import alive
from zoned.kernel.syscalls import pidfd_open

if TYPE_CHECKING:
    from zoned.kernel.process import Process
    from zoned.kernel.root import Root


class Watch:
    """Tells whether processes still run, each by a descriptor of its own. A context manager.

    Where the kernel has no pidfd (before 5.3) or none is to be had, /proc is read each time.
    Several threads may use it at a time.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._files: dict[Process, int | None] = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            if file is not None:
                os.close(file)
        self._files.clear()

    def alive(self, process: Process) -> bool:
        """Tell whether this very process still runs."""
        if process not in self._files:
            self._open(process)
        file = self._files[process]
        if file is None:
            return alive(self._root, process)
        # One object for each call: two threads must not use the same one at a time.
        poll = select.poll()
        poll.register(file, select.POLLIN)
        return not poll.poll(0)

    def _open(self, process: Process) -> None:
        file = open_pidfd(self._root, process)
        if self._files.setdefault(process, file) != file and file is not None:
            os.close(file)


def open_pidfd(root: Root, process: Process) -> int | None:
    """Return a descriptor that becomes readable when this very process ends.

    None where it has ended, or the kernel has no such thing (before 5.3), or none is to be had.
    """
    try:
        file = pidfd_open(process.pid)
    except OSError:
        return None
    # Opened first, compared second: a number that was given to another process is noticed.
    if alive(root, process):
        return file
    os.close(file)
    return None
