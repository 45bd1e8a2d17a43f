# SPDX-License-Identifier: Apache-2.0
"""What processes have open and mapped, for questions that take all processes to answer.

Sources: proc_pid_fd(5), proc_pid_maps(5), proc_pid_task(5).

A process whose first thread has ended shows nothing of it under its own number, though its other
threads go on; under theirs, which /proc does not list, it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.process import all_pids
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned.kernel.root import Root


def pids_meanwhile(root: Root) -> Iterator[int]:
    """Yield the numbers of all processes, then of those that were begun while the caller looked at
    the first: one may have its memory from a parent that had ended when it was looked at.
    """
    before = all_pids(root)
    yield from before
    yield from sorted({*all_pids(root)} - {*before})


def mapped_files(root: Root, pid: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield the process's mappings that have a name: the folder in /proc that shows them, and the
    six words of the line. Raises MachineError where the kernel forbids the look.
    """
    for folder in _folders(root, pid):
        text = read_text(folder / "maps")
        # Not splitlines: a path may hold any of the other characters that end a line.
        for line in (text or "").split("\n"):
            words = line.split(None, 5)
            if len(words) == 6:
                yield folder, words
        if text:
            return


def open_files(root: Root, pid: int) -> Iterator[Path]:
    """Yield a link in /proc for each file that the process has open.

    What it closes meanwhile may be among them. Raises MachineError where the kernel forbids the
    look.
    """
    for folder in _folders(root, pid):
        try:
            found = list((folder / "fd").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError as error:
            raise MachineError(
                f"cannot see what process {pid} has open: {error.strerror}"
            ) from error
        if found:
            yield from found
            return


def _folders(root: Root, pid: int) -> Iterator[Path]:
    """Yield the process's folder in /proc, then those of its other threads."""
    own = root.proc / str(pid)
    yield own
    try:
        threads = sorted(each.name for each in (own / "task").iterdir())
    except OSError:
        return
    yield from (root.proc / each for each in threads if each != str(pid))
