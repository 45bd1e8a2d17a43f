# SPDX-License-Identifier: Apache-2.0
"""What the pages of a memory block are, and whose.

Sources: Documentation/admin-guide/mm/pagemap.rst, fs/proc/page.c (stable_page_flags), and
mm/page_isolation.c (has_unmovable_pages) for what keeps a block.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

from zoned.errors import MachineError, Unsupported
from zoned.kernel.iomem import read_iomem
from zoned.kernel.page_flags import (
    KPF_BUDDY,
    KPF_COMPOUND_HEAD,
    KPF_COMPOUND_TAIL,
    KPF_HUGE,
    KPF_HWPOISON,
    KPF_LRU,
    KPF_NOPAGE,
    KPF_OFFLINE,
    KPF_PGTABLE,
    KPF_RESERVED,
    KPF_SLAB,
    KPF_THP,
    KPF_UNEVICTABLE,
    KPF_ZERO_PAGE,
    open_list,
    read_list,
)
from zoned.model.block import (
    BALLOONED,
    GIGANTIC,
    OTHER,
    PAGE_TABLES,
    PLAIN,
    RESERVED,
    SLAB,
    BlockPages,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    import numpy.typing as npt

    from zoned.kernel.root import Root
    from zoned.model.topology import Block

    Words = npt.NDArray[np.uint64]
    Places = npt.NDArray[np.bool_]

_GIGANTIC = 1 << 30
"""Bytes from which on a hugetlb page is beyond what the kernel has at hand to move it to: 1 GiB on
most architectures, 2 and 16 GiB on others."""
_RAM = "System RAM"
# Bit KPF_OWNER_2 of include/linux/kernel-page-flags.h, no promise either (KPF_OWNER_PRIVATE before
# 6.11): on pages of the kernel's own it marks a memory map that lies in the block it describes
# (memory_hotplug.memmap_on_memory), and it goes and comes with the block.
_OWN_MAP = np.uint64(1 << 37)
_PAGE = mmap.PAGESIZE

# Which flags make a page what it is; the first that fits counts.
_KINDS = (
    ("holes", KPF_NOPAGE),
    # Damaged pages keep no block.
    ("damaged", KPF_HWPOISON),
    ("free", KPF_BUDDY),
    ("huge", KPF_HUGE),
    (SLAB, KPF_SLAB),
    (PAGE_TABLES, KPF_PGTABLE),
    (RESERVED, KPF_RESERVED),
    (BALLOONED, KPF_OFFLINE),
    (OTHER, KPF_ZERO_PAGE),
    ("movable", KPF_LRU | KPF_UNEVICTABLE | KPF_THP),
)


class BlockReader:
    """The kernel's lists of page frames, opened once. A context manager.

    What it tells may have changed when it is read: nothing keeps a page as it is.
    """

    def __init__(self, root: Root) -> None:
        """Open the lists. Whose pages they are stays unknown where the kernel has no memcg.

        Raises Unsupported where the kernel was built without them or does not show them to the
        caller: they are root's.
        """
        self._ranges = tuple(_system_ram(root))
        self._flags = open_list(root, "kpageflags")
        self._groups: int | None = None
        try:
            self._groups = open_list(root, "kpagecgroup")
        except Unsupported:
            pass
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
        if self._groups is not None:
            os.close(self._groups)

    def read(self, block: Block) -> BlockPages:
        """Return what the block's pages are. All of one that is offline are holes.

        Raises MachineError where the lists cannot be read, or the block's size is not known.
        """
        if block.size is None:
            raise MachineError(f"the size of memory block {block.id} is not known")
        first, count = block.start // _PAGE, block.size // _PAGE
        flags = _read(self._flags, first, count, int(KPF_NOPAGE))
        found = _count(flags)
        found.pop("damaged", None)
        missing = 0 if not self._ranges else count - _overlap(self._ranges, first, first + count)
        return BlockPages(
            total=count,
            free=found.pop("free", 0),
            movable=found.pop("movable", 0),
            huge=found.pop("huge", 0),
            # Frames of a hole often look reserved.
            holes=max(found.pop("holes", 0), missing),
            unmovable=found,
            owners=self._owners(first, flags),
        )

    def _owners(self, first: int, flags: Words) -> dict[int, int]:
        if self._groups is None:
            return {}
        groups = _read(self._groups, first, len(flags), 0)
        # Kernels before 6.5 only know the group of the first page of a large one.
        places = np.arange(len(flags))
        places[flags & KPF_COMPOUND_TAIL != 0] = 0
        groups = groups[np.maximum.accumulate(places)]
        inodes, pages = np.unique(groups[groups != 0], return_counts=True)
        return {
            int(inode): int(number) * _PAGE for inode, number in zip(inodes, pages, strict=True)
        }


def _system_ram(root: Root) -> Iterator[tuple[int, int]]:
    """Yield the first and the first-after-the-last whole page of each range of memory."""
    for each in read_iomem(root) or ():
        if each.name.startswith(_RAM):
            yield -(-each.start // _PAGE), (each.end + 1) // _PAGE


def _overlap(ranges: Sequence[tuple[int, int]], first: int, end: int) -> int:
    return sum(max(0, min(end, stop) - max(first, start)) for start, stop in ranges)


def _read(fd: int, first: int, count: int, missing: int) -> Words:
    values = np.full(count, missing, np.uint64)
    read_list(fd, first, values.data.cast("B"))
    return values


def _count(flags: Words) -> dict[str, int]:
    """Return how many pages are of each kind, without those that are none."""
    found: dict[str, int] = {}
    left = np.ones(len(flags), np.bool_)
    left[: _own_map(flags)] = False
    for kind, bits in _KINDS:
        here = left & (flags & bits != 0)
        found[kind] = int(here.sum()) + found.get(kind, 0)
        left &= ~here
        if kind == "huge":
            found[GIGANTIC] = _gigantic(flags, here)
            found["huge"] -= found[GIGANTIC]
    found[PLAIN] = int((left & (flags == 0)).sum())
    found[OTHER] += int(left.sum()) - found[PLAIN]
    return {kind: pages for kind, pages in found.items() if pages}


def _own_map(flags: Words) -> int:
    """Return how many pages at the block's start are its own memory map."""
    others = flags & ~KPF_RESERVED != _OWN_MAP
    return int(others.argmax()) if others.any() else len(flags)


def _gigantic(flags: Words, huge: Places) -> int:
    """Return how many pages are of gigantic ones: too long, or begun in an earlier block."""
    heads = huge & (flags & KPF_COMPOUND_HEAD != 0)
    # Each run begins at a head, or where hugetlb pages end; the first one also at the start.
    starts = np.flatnonzero(heads | ~huge)
    bounds = np.concatenate(([0], starts, [len(flags)]))
    lengths = np.diff(bounds)
    tails_first = int(lengths[0]) if len(flags) and huge[0] else 0
    long = lengths[1:] * _PAGE >= _GIGANTIC
    return tails_first + int(lengths[1:][long & huge[bounds[1:-1]]].sum())
