# SPDX-License-Identifier: Apache-2.0
"""Looking at the resident pages of processes: folios, where they are, who else maps them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoned.errors import NoSuchProcess
from zoned.kernel.maps import mappings
from zoned.kernel.page_flags import (
    KPF_ANON,
    KPF_COMPOUND_HEAD,
    KPF_COMPOUND_TAIL,
    KPF_HUGE,
    KPF_MLOCKED,
    KPF_NOPAGE,
    KPF_OFFLINE,
    KPF_PGTABLE,
    KPF_RESERVED,
    KPF_UNEVICTABLE,
    KPF_ZERO_PAGE,
    PageFlags,
)
from zoned.kernel.page_nodes import PageNodes
from zoned.kernel.pagemap import PageMap, Pages
from zoned.kernel.syscalls import move_pages_raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from zoned.kernel.maps import Mapping
    from zoned.kernel.process import Process
    from zoned.kernel.root import Root

PAGE = 4096
GROUP = 1 << 14
"""Pages that are worked on in one go, about: fewer at the end, more where a folio goes on."""

_NEAR = 1024 * PAGE
"""Mappings that lie nearer to each other than this are looked at as one."""

_NOT_MEMORY = KPF_NOPAGE | KPF_ZERO_PAGE | KPF_OFFLINE | KPF_PGTABLE | KPF_RESERVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Resident pages of a process, as arrays of equal length."""

    addresses: NDArray[np.uint64]
    pfns: NDArray[np.uint64]
    nodes: NDArray[np.int32]
    shared: NDArray[np.bool_]
    """mapped more than once"""
    program: NDArray[np.bool_]
    """which of those that are shared belong to a file that may be executed"""

    def __len__(self) -> int:
        return len(self.addresses)

    def only(self, chosen: NDArray[np.bool_]) -> Resident:
        """Return some of them."""
        if chosen.all():
            return self
        return Resident(
            addresses=self.addresses[chosen],
            pfns=self.pfns[chosen],
            nodes=self.nodes[chosen],
            shared=self.shared[chosen],
            program=self.program[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Folios:
    """Folios that a process maps, as arrays of equal length."""

    addresses: NDArray[np.uint64]
    """of the first page of each that is mapped"""
    pfns: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    """bytes of each that are mapped"""
    nodes: NDArray[np.int32]
    flags: NDArray[np.uint64]
    shared: NDArray[np.bool_]
    """mapped more than once"""
    program: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.addresses)

    def only(self, chosen: NDArray[np.bool_]) -> Folios:
        """Return some of them."""
        if chosen.all():
            return self
        return Folios(
            addresses=self.addresses[chosen],
            pfns=self.pfns[chosen],
            sizes=self.sizes[chosen],
            nodes=self.nodes[chosen],
            flags=self.flags[chosen],
            shared=self.shared[chosen],
            program=self.program[chosen],
        )

    @property
    def huge(self) -> NDArray[np.bool_]:
        """Which are hugetlb pages."""
        return has(self.flags, KPF_HUGE)

    @property
    def large(self) -> NDArray[np.bool_]:
        """Which are of more than one page, hugetlb or not."""
        return has(self.flags, KPF_COMPOUND_HEAD | KPF_COMPOUND_TAIL) & (self.sizes > PAGE)

    @property
    def anonymous(self) -> NDArray[np.bool_]:
        """Which are anonymous memory."""
        return has(self.flags, KPF_ANON)

    @property
    def locked(self) -> NDArray[np.bool_]:
        """Which are locked into memory."""
        return has(self.flags, KPF_MLOCKED | KPF_UNEVICTABLE)


def has(flags: NDArray[np.uint64], bits: np.uint64) -> NDArray[np.bool_]:
    """Tell which have any of the bits."""
    found: NDArray[np.bool_] = (flags & bits) != 0
    return found


class Eyes:
    """What is needed to look at pages, opened once. A context manager.

    Raises Unsupported where the kernel has no page maps (CONFIG_PROC_PAGE_MONITOR), or hides them.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self.flags = PageFlags(root)
        self.nodes = PageNodes(root)

    def __enter__(self) -> Eyes:
        return self

    def __exit__(self, *_: object) -> None:
        self.flags.close()

    def resident(self, process: Process) -> Iterator[Resident]:
        """Yield the resident pages of a process in groups; of one that ended, nothing.

        No folio is cut in two by a group's end.
        """
        with contextlib.suppress(NoSuchProcess), PageMap(self._root, process.pid) as pagemap:
            found = mappings(self._root, process.pid)
            programs = _Programs(found)
            for pages in self._groups(pagemap, found):
                pfns = pages.pfns
                nodes = self.nodes.nodes(pfns)
                _ask_unknown(process.pid, pages.addresses, nodes)
                shared = ~pages.exclusive
                yield Resident(
                    addresses=pages.addresses,
                    pfns=pfns,
                    nodes=nodes,
                    shared=shared,
                    program=programs.have(pages.addresses, shared),
                )

    def _groups(self, pagemap: PageMap, found: Sequence[Mapping]) -> Iterator[Pages]:
        parts: list[Pages] = []
        count = 0
        for start, end in _spans(found):
            for first, last in pagemap.present(start, end):
                pages = pagemap.pages(first, last)
                if not len(pages.addresses):
                    continue
                # All but tails of folios begin something.
                if count >= GROUP and not has(self.flags.flags(pages.pfns[:1]), KPF_COMPOUND_TAIL):
                    yield _joined(parts)
                    parts, count = [], 0
                parts.append(pages)
                count += len(pages.addresses)
        if parts:
            yield _joined(parts)

    def folios(self, pages: Resident) -> Folios:
        """Return the folios that pages make up, without what is no memory of the kernel's."""
        flags = self.flags.flags(pages.pfns)
        first = _first_pages(pages, flags)
        starts = np.flatnonzero(first)
        heads = pages.only(first)
        flags = flags if first.all() else flags[starts]
        return Folios(
            addresses=heads.addresses,
            pfns=heads.pfns,
            sizes=np.diff(starts, append=len(pages)) * PAGE,
            nodes=heads.nodes,
            flags=flags,
            shared=heads.shared,
            program=heads.program,
        ).only(~has(flags, _NOT_MEMORY))


class _Programs:
    """Where a process has mapped files that it may execute."""

    def __init__(self, found: Sequence[Mapping]) -> None:
        self._starts = np.array([each.start for each in found], np.uint64)
        self._are = np.array([each.file and each.executable for each in found], np.bool_)

    def have(self, addresses: NDArray[np.uint64], asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which addresses lie in one, of those that are asked for."""
        found = np.zeros(len(addresses), np.bool_)
        places = np.searchsorted(self._starts, addresses[asked], side="right") - 1
        found[asked] = self._are[places]
        return found


def _ask_unknown(pid: int, addresses: NDArray[np.uint64], nodes: NDArray[np.int32]) -> None:
    """Ask the kernel for the nodes of pages that the memory blocks do not tell."""
    unknown = np.flatnonzero(nodes < 0)
    if len(unknown):
        status = where(pid, addresses[unknown])
        nodes[unknown] = np.where(status >= 0, status, -1)


def where(pid: int, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return the node of each page, or what is in the way as a negative errno.

    Nothing but -ESRCH where the process is gone.
    """
    status = np.empty(len(addresses), np.int32)
    try:
        move_pages_raw(pid, np.ascontiguousarray(addresses), None, status, 0)
    except OSError as error:
        status[:] = -(error.errno or 1)
    return status


def _spans(found: Sequence[Mapping]) -> Iterator[tuple[int, int]]:
    """Yield ranges of addresses that hold all mappings, and little beside them."""
    if not found:
        return
    start, end = found[0].start, found[0].end
    for each in found[1:]:
        if each.start - end > _NEAR:
            yield start, end
            start = each.start
        end = each.end
    yield start, end


def _joined(parts: list[Pages]) -> Pages:
    if len(parts) == 1:
        return parts[0]
    return Pages(
        addresses=np.concatenate([each.addresses for each in parts]),
        entries=np.concatenate([each.entries for each in parts]),
        swapped=sum(each.swapped for each in parts),
    )


def _first_pages(pages: Resident, flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which pages begin a folio: all but tails that follow the page before them.

    A folio that is mapped only in part may have no head here; its first page stands for it.
    """
    first = np.ones(len(pages), np.bool_)
    follows = has(flags[1:], KPF_COMPOUND_TAIL)
    if not follows.any():
        return first
    follows &= pages.pfns[1:] == pages.pfns[:-1] + np.uint64(1)
    follows &= pages.addresses[1:] == pages.addresses[:-1] + np.uint64(PAGE)
    first[1:] = ~follows
    return first
