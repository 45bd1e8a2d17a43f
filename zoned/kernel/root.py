# SPDX-License-Identifier: Apache-2.0
"""Where the machine's pseudo file systems are, and the four ways to touch a file in them.

A `Root` is handed to every reader, so that all of them can be pointed at a recorded machine.
A file that is missing, or whose device is gone, reads as None: "unknown", never zero.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from zoned.errors import BadList, KernelRefused, MachineError
from zoned.idset import parse_ids

# A file that vanishes between listing and reading answers with one of these.
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ESRCH, errno.ENOTDIR})

_CHUNK = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The mounted sysfs, procfs and cgroup file systems of one machine."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    run: Path = Path("/run")
    dev: Path = Path("/dev")
    live: bool = True
    """False for a recorded machine, which nothing can be written to."""


def sysroot(folder: Path) -> Root:
    """Return the root of the recorded machine below `folder`, which holds sys/ and proc/."""
    return Root(
        sys=folder / "sys",
        proc=folder / "proc",
        cgroup=folder / "sys/fs/cgroup",
        run=folder / "run",
        dev=folder / "dev",
        live=False,
    )


def read_text(path: Path) -> str | None:
    """Return the file's text without surrounding white space, or None where there is none.

    Raises MachineError for any failure but absence.
    """
    try:
        return _read(path).decode(errors="replace").strip()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise MachineError(f"cannot read {path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    # A look at a large machine is thousands of these; Python's own files take twice as long.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _CHUNK), b""))
    finally:
        os.close(descriptor)


def read_int(path: Path, base: int = 10) -> int | None:
    """Return the file's number, or None where there is none; "max" is None too.

    Raises MachineError naming path and content for anything else.
    """
    text = read_text(path)
    if text is None or text in {"", "max"}:
        return None
    try:
        return int(text, base)
    except ValueError as error:
        raise MachineError(f"{path} holds {text!r} where a number was expected") from error


def read_ids(path: Path) -> frozenset[int] | None:
    """Return the file's list of numbers (``0-3,8``), or None where there is none.

    Raises MachineError naming path and content where it is no such list.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        # Kernels up to 2.6.3x end these lists with a NUL.
        return parse_ids(text.rstrip("\0\n"))
    except BadList as error:
        raise MachineError(f"{path} holds {text!r} where a list was expected") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` with a single write(2), as kernel files want it.

    Raises KernelRefused naming value, path and the kernel's reason.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelRefused(f"echo {text!r} > {path}: {error.strerror}") from error
