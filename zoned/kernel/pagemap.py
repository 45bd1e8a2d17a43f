# SPDX-License-Identifier: Apache-2.0
"""The resident pages of a process: their addresses and page frame numbers.

Sources: Documentation/admin-guide/mm/pagemap.rst, PAGEMAP_SCAN(2const), include/uapi/linux/fs.h.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned.errors import MachineError, NoSuchProcess, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    import numpy.typing as npt

    from zoned.kernel.root import Root

    Words = npt.NDArray[np.uint64]

WINDOW = 1 << 14
"""Pages that one range of `PageMap.present` has at most: 64 MiB of 4 KiB pages. Their arrays stay
in the processor's caches, and in memory that was in use before."""
MOST_SCANNED = 1 << 16
"""Pages that one scan finds at most: the process can map nothing meanwhile."""

_PAGE = mmap.PAGESIZE
# Entries of /proc/PID/pagemap. Bit 63, present, is the sign of the word.
_WORD = 8
_PFN = np.uint64((1 << 55) - 1)
_EXCLUSIVE = np.uint64(1 << 56)
_FILE = np.uint64(1 << 61)
_SWAPPED = np.uint64(1 << 62)

# include/uapi/linux/fs.h: struct pm_scan_arg is twelve words (size, flags, start, end, walk_end,
# vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask),
# struct page_region three (start, end, categories); the ioctl is _IOWR('f', 16, pm_scan_arg).
_ARGUMENT = struct.Struct("=12Q")
_WALK_END = 4
_SCAN = 3 << 30 | _ARGUMENT.size << 16 | ord("f") << 8 | 16
_IS_PRESENT = 1 << 3
_NO_SCAN = frozenset({errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.ENOSYS})
_REGIONS = 4096
# Reading this many empty entries costs less than another call does.
_NEAR = np.uint64(1024 * _PAGE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pages:
    """Resident pages in ascending order of their addresses; the arrays are equally long."""

    addresses: Words
    """bytes, multiples of the page size"""
    entries: Words
    """what the kernel tells of each"""
    swapped: int
    """bytes of the same range that are in swap; a page on its way between nodes counts as such"""

    @property
    def pfns(self) -> Words:
        """Page frame numbers."""
        return self.entries & _PFN

    @property
    def exclusive(self) -> npt.NDArray[np.bool_]:
        """Which are mapped by this process only, and only once."""
        return (self.entries & _EXCLUSIVE).astype(np.bool_)

    @property
    def file(self) -> npt.NDArray[np.bool_]:
        """Which are of a file, or of memory that processes share."""
        return (self.entries & _FILE).astype(np.bool_)


class PageMap:
    """The page table of one process, opened once.

    It stays with the memory that the process had when it was opened: after the process has ended
    or has executed another program it yields nothing. Several threads may use it at a time.
    """

    def __init__(self, root: Root, pid: int) -> None:
        """Open it.

        Raises NoSuchProcess; Unsupported where the kernel was built without; MachineError where
        the kernel forbids the look.
        """
        self._fd = _open(root.proc / str(pid), pid)
        self._pid = pid
        self._scans = True
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def present(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield ascending ranges of addresses that hold all resident pages between two addresses.

        A range has at most WINDOW pages. Not all of its pages need be resident: what lies near
        together comes as one. Kernels since 6.7 are asked (ioctl PAGEMAP_SCAN), and leave out
        memory of devices, which has no pages to move; with others all is yielded, resident or not.

        Raises ValueError for addresses that are no multiples of the page size.
        """
        if start % _PAGE or end % _PAGE:
            raise ValueError(f"{start:#x}-{end:#x}: not whole pages")
        if not self._has_memory():
            return
        while start < end:
            found = self._scan(start, end)
            if found is None:
                yield from _windows(start, end)
                return
            regions, start = found
            for near in _join(regions):
                yield from _windows(*near)

    def pages(self, start: int, end: int) -> Pages:
        """Return the resident pages from one address up to another, both multiples of a page.

        Raises Unsupported where the kernel hides page frame numbers: it shows them only to who has
        CAP_SYS_ADMIN. Raises ValueError as `present` does.
        """
        if start % _PAGE or end % _PAGE:
            raise ValueError(f"{start:#x}-{end:#x}: not whole pages")
        words = self._read(start, end)
        resident = words.view(np.int64) < 0
        swapped = 0
        if resident.all():
            addresses = np.arange(start, start + len(words) * _PAGE, _PAGE, dtype=np.uint64)
        else:
            addresses = np.flatnonzero(resident).astype(np.uint64) * np.uint64(_PAGE)
            addresses += np.uint64(start)
            swapped = int(np.count_nonzero(words[~resident] & _SWAPPED)) * _PAGE
            words = words[resident]
        # One page of number 0 exists (a device's), so a single 0 proves nothing once others came.
        self._shown = self._shown or bool((words & _PFN).any())
        if len(words) and not self._shown:
            raise Unsupported(
                f"the kernel hides the page frame numbers of process {self._pid}",
                hint="this needs CAP_SYS_ADMIN",
            )
        return Pages(addresses=addresses, entries=words, swapped=swapped)

    def _read(self, start: int, end: int) -> Words:
        """Return the entries; fewer where the process or its addresses end."""
        words = np.empty(max(0, end - start) // _PAGE, np.uint64)
        view = words.data.cast("B") if len(words) else memoryview(b"")
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], start // _PAGE * _WORD + done)
            if not count:
                break
            done += count
        return words[: done // _WORD]

    def _has_memory(self) -> bool:
        """Tell whether there is any memory behind the file.

        Kernels before 6.16 that have the ioctl fall over it where there was none from the start:
        a thread of the kernel, or a process that had just ended. A read finds out without harm.
        """
        return bool(os.pread(self._fd, _WORD, 0))

    def _scan(self, start: int, end: int) -> tuple[Words, int] | None:
        """Return resident regions as rows (start, end, _), and where to go on; None: cannot scan.

        The kernel keeps the process from mapping anything during the call, so it is kept short.
        """
        if not self._scans:
            return None
        regions = np.empty((_REGIONS, 3), np.uint64)
        place = regions.__array_interface__["data"][0]
        limits = (place, _REGIONS, MOST_SCANNED, 0, _IS_PRESENT, 0, _IS_PRESENT)
        argument = bytearray(_ARGUMENT.pack(_ARGUMENT.size, 0, start, end, 0, *limits))
        try:
            count = fcntl.ioctl(self._fd, _SCAN, argument, True)  # noqa: FBT003 - only by position
        except OSError as error:
            if error.errno not in _NO_SCAN:
                raise MachineError(
                    f"cannot scan the pages of process {self._pid}: {error.strerror}"
                ) from error
            self._scans = False
            return None
        walked = _ARGUMENT.unpack(argument)[_WALK_END]
        # The kernel notes where it stopped only when a buffer of its own was full, and what it
        # notes may lie before what it then told.
        reached = max([walked, *regions[count - 1 : count, 1].tolist()])
        # Without progress, or past the end: what is left is read without a scan.
        return (regions[:count], reached) if start < reached <= end else None


def _open(folder: Path, pid: int) -> int:
    path = folder / "pagemap"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT and folder.is_dir():
            raise Unsupported("this kernel does not show page tables (pagemap)") from error
        if error.errno in {errno.ENOENT, errno.ESRCH}:
            raise NoSuchProcess(f"there is no process {pid}") from error
        raise MachineError(f"cannot read {path}: {error.strerror}") from error


def _windows(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range where its addresses are multiples of a window's: no huge page goes on there."""
    step = WINDOW * _PAGE
    borders = [start, *range(start // step * step + step, end, step), end]
    yield from itertools.pairwise(borders)


def _join(regions: Words) -> Iterator[tuple[int, int]]:
    """Yield the ranges that regions make up when those near to each other are taken as one."""
    if not len(regions):
        return
    starts, ends = regions[:, 0], regions[:, 1]
    apart = starts[1:] - ends[:-1] > _NEAR
    firsts = starts[np.concatenate(([True], apart))]
    lasts = ends[np.concatenate((apart, [True]))]
    yield from zip(firsts.tolist(), lasts.tolist(), strict=True)
