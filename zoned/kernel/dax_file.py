# SPDX-License-Identifier: Apache-2.0
"""Device-dax regions as files that programs map: opened, wiped, and who still has one.

Sources: Documentation/ABI/testing/sysfs-bus-dax (align), drivers/dax/device.c (a mapping has to be
shared and a multiple of the alignment), fs/char_dev.c: each open
file of a device holds the module that drives it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused
from zoned.kernel.holdings import mapped_files, open_files, pids_meanwhile
from zoned.kernel.root import read_int

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned.kernel.root import Root

_ALIGN = 2 << 20
_MODULE = "device_dax"
_CHUNK = 64 << 20
_ZEROES = bytes(1 << 20)


def alignment(root: Root, name: str) -> int:
    """Return the bytes that offset and length of every mapping are multiples of."""
    return read_int(root.sys / "bus/dax/devices" / name / "align") or _ALIGN


def open_region(root: Root, name: str) -> int:
    """Return a descriptor of the region. Raises KernelRefused."""
    path = root.dev / name
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KernelRefused(f"cannot open {path}: {error.strerror}") from error


def wipe(descriptor: int, offset: int, size: int) -> None:
    """Overwrite a part of a region with zeroes; offset and size are multiples of its alignment.

    Takes about a second for some GiB. Raises KernelRefused.
    """
    for start in range(offset, offset + size, _CHUNK):
        length = min(_CHUNK, offset + size - start)
        try:
            with mmap.mmap(descriptor, length, offset=start) as mapped:
                for place in range(0, length, len(_ZEROES)):
                    piece = min(len(_ZEROES), length - place)
                    mapped[place : place + piece] = _ZEROES[:piece]
        except OSError as error:
            raise KernelRefused(f"cannot map a device-dax region: {error.strerror}") from error


def mapped_parts(root: Root, name: str) -> tuple[tuple[int, int], ...]:
    """Return (offset, size) of each mapping of the region that any process has.

    Raises MachineError where the kernel forbids the look.
    """
    path = root.dev / name
    identity = _identity(path)
    found = []
    for pid in pids_meanwhile(root):
        for _, words in mapped_files(root, pid):
            if words[5] == str(path) or tuple(words[3:5]) == identity:
                start, _, end = words[0].partition("-")
                found.append((int(words[2], 16), int(end, 16) - int(start, 16)))
    return tuple(found)


def open_anywhere(root: Root, name: str) -> bool:
    """Return whether anybody has the region open or mapped, or may have.

    A descriptor can lie unseen in a socket, so the kernel's count for its module is asked, which
    is one for all regions. Where there is none (a driver built in) only what /proc shows counts.
    Raises MachineError where the kernel forbids the look.
    """
    users = read_int(root.sys / "module" / _MODULE / "refcnt")
    if users is not None:
        return users > 0
    return bool(mapped_parts(root, name)) or any(
        target == str(root.dev / name)
        for pid in pids_meanwhile(root)
        for target in _open(root, pid)
    )


def _open(root: Root, pid: int) -> Iterator[str]:
    """Yield what a process has open, but for what it closes meanwhile."""
    for link in open_files(root, pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield str(link.readlink())


def _identity(path: Path) -> tuple[str, str] | None:
    """Return how maps name its device and inode; None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    return device, str(found.st_ino)
