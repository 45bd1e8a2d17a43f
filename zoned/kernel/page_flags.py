# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells about single page frames: flags, and how often each is mapped.

Sources: Documentation/admin-guide/mm/pagemap.rst, include/uapi/linux/kernel-page-flags.h, and for
the flags that are no promise include/linux/kernel-page-flags.h.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from zoned.errors import MachineError, Unsupported

if TYPE_CHECKING:
    from typing import Self

    import numpy.typing as npt

    from zoned.kernel.root import Root

    Words = npt.NDArray[np.uint64]


def _bit(number: int) -> np.uint64:
    return np.uint64(1 << number)


# include/uapi/linux/kernel-page-flags.h
KPF_LOCKED = _bit(0)
KPF_LRU = _bit(5)
KPF_SLAB = _bit(7)
KPF_WRITEBACK = _bit(8)
KPF_BUDDY = _bit(10)
"""free"""
KPF_ANON = _bit(12)
KPF_COMPOUND_HEAD = _bit(15)
KPF_COMPOUND_TAIL = _bit(16)
KPF_HUGE = _bit(17)
"""of a hugetlb page"""
KPF_UNEVICTABLE = _bit(18)
KPF_HWPOISON = _bit(19)
KPF_NOPAGE = _bit(20)
"""there is no page frame of that number; also said of one that the file does not reach"""
KPF_KSM = _bit(21)
KPF_THP = _bit(22)
KPF_OFFLINE = _bit(23)
KPF_ZERO_PAGE = _bit(24)
KPF_PGTABLE = _bit(26)
# include/linux/kernel-page-flags.h
KPF_RESERVED = _bit(32)
KPF_MLOCKED = _bit(33)

_WORD = 8
# The kernel takes about 0.1 us for each frame: it is cheaper to read a few that nobody asked for
# than to make another call.
_NEAR = 16


class PageFlags:
    """The kernel's lists of page frames, opened once. Several threads may use it at a time.

    What it tells may have changed when it is read: nothing keeps a page as it is.
    """

    def __init__(self, root: Root) -> None:
        """Open the lists.

        Raises Unsupported where the kernel was built without them or does not show them to the
        caller: they are root's.
        """
        self._flags = open_list(root, "kpageflags")
        try:
            self._counts = open_list(root, "kpagecount")
        except MachineError:
            os.close(self._flags)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        os.close(self._flags)
        os.close(self._counts)

    def flags(self, pfns: Words) -> Words:
        """Return the KPF_ bits of each frame, in the order of `pfns`, which may repeat."""
        return _lookup(self._flags, pfns, KPF_NOPAGE)

    def mapcounts(self, pfns: Words) -> Words:
        """Return how often each frame is mapped by processes; 0 for what is no frame.

        A process that maps a page twice counts twice. Of a large folio some kernels only know the
        average over its pages (CONFIG_NO_PAGE_MAPCOUNT), at least 1 where any of them is mapped.
        """
        return _lookup(self._counts, pfns, np.uint64(0))


def _lookup(fd: int, pfns: Words, missing: np.uint64) -> Words:
    result = np.empty(len(pfns), np.uint64)
    if not len(pfns):
        return result
    # Frames of neighbouring addresses mostly follow each other, which this kind of sort makes
    # use of.
    order = np.argsort(pfns, kind="stable")
    ascending = pfns[order]
    apart = np.diff(ascending) > _NEAR
    lows = ascending[np.concatenate(([True], apart))]
    lengths = ascending[np.concatenate((apart, [True]))] - lows + np.uint64(1)
    places = np.cumsum(lengths) - lengths
    values = np.full(int(lengths.sum()), missing, np.uint64)
    _read_runs(fd, values, lows.tolist(), lengths.tolist())
    run = np.concatenate((np.zeros(1, np.intp), np.cumsum(apart)))
    result[order] = values[ascending - lows[run] + places[run]]
    return result


def _read_runs(fd: int, values: Words, lows: list[int], lengths: list[int]) -> None:
    """Read each run of the file behind the one before; what the file does not reach is left."""
    view = values.data.cast("B")
    place = 0
    for low, length in zip(lows, lengths, strict=True):
        end = place + length * _WORD
        read_list(fd, low, view[place:end])
        place = end


def open_list(root: Root, name: str) -> int:
    """Return a descriptor of one of the lists of page frames in /proc.

    Raises Unsupported where there is none or the caller may not see it, and MachineError.
    """
    path = root.proc / name
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES, errno.EPERM}:
            raise Unsupported(f"cannot read {path}: {error.strerror}") from error
        raise MachineError(f"cannot read {path}: {error.strerror}") from error


def read_list(fd: int, first: int, view: memoryview) -> None:
    """Read the words of page frames from `first` on; what the file does not reach is left."""
    place = first * _WORD
    while view and (count := os.preadv(fd, [view], place)):
        view, place = view[count:], place + count
