# SPDX-License-Identifier: Apache-2.0
"""Pages of some processes, and move_pages(2) as the kernel does it.

Like the kernel it takes pages together that follow each other and go to the same node, moves them
when one cannot be taken, and stops at the first such group of which not all moved: that group and
what is behind it keep the status they had. Source: do_pages_move in mm/migrate.c.
"""

from __future__ import annotations

import errno
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zoned.engine.migration.look import Eyes, Resident
from zoned.kernel.page_flags import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_LRU
from zoned.kernel.process import Process
from zoned.kernel.syscalls import MPOL_MF_MOVE_ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PAGE = 4096
_FREE = 1 << 10
"""KPF_BUDDY of include/uapi/linux/kernel-page-flags.h"""


@dataclass
class Page:
    """A page or larger folio. It gets another frame whenever it moves."""

    node: int
    size: int = PAGE
    pfn: int = 0
    off_list: int = 0
    """calls for which it cannot be taken (-EBUSY)"""
    held: int = 0
    """calls in which it is taken and does not move; -1 is always"""
    device: bool = False
    """not the kernel's to move (-EFAULT)"""
    others: int = 0
    """mappings by processes that nobody looks at"""
    flags: int = int(KPF_LRU)


@dataclass
class FakeKernel:
    """Processes and their pages."""

    memory: dict[int, dict[int, Page]] = field(default_factory=dict)
    """pid -> address -> page"""
    full: set[int] = field(default_factory=set)
    """nodes that have nothing to give"""
    ended: set[int] = field(default_factory=set)
    before: Callable[[int], None] = lambda _: None
    """called with the pid before each call that moves"""
    group: int = 100
    """how many pages are looked at in one go"""
    programs: set[int] = field(default_factory=set)
    """addresses of programs and libraries"""
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    """(pid, pages, flags) of each call that moves"""
    whole: list[tuple[int, frozenset[int], frozenset[int]]] = field(default_factory=list)
    _mapped: Counter[int] = field(default_factory=Counter)
    _pfns: Iterator[int] = field(default_factory=lambda: itertools.count(1024, 1024))

    def page(self, node: int, **more: Any) -> Page:
        """Return a new page."""
        return Page(node=node, pfn=next(self._pfns), **more)

    def fill(self, pid: int, node: int, pages: int, *, size: int = PAGE, at: int = 1 << 20) -> None:
        """Give a process pages on a node."""
        mine = self.memory.setdefault(pid, {})
        for number in range(pages):
            mine[at + number * size] = self.page(node, size=size)

    def end(self, pid: int) -> None:
        """End a process."""
        self.ended.add(pid)
        self.memory.pop(pid, None)

    def bytes_on(self, pid: int, node: int) -> int:
        """Return what a process has on a node."""
        return sum(page.size for page in self.memory[pid].values() if page.node == node)

    def _count(self) -> None:
        """Count how often each page is mapped."""
        mapped = (id(page) for pages in self.memory.copy().values() for page in pages.values())
        self._mapped = Counter(mapped)

    def mapcount(self, page: Page) -> int:
        """Return how often a page was mapped when that was counted last."""
        return self._mapped[id(page)] + page.others

    # What stands in for the kernel's interfaces

    def processes(self) -> list[Process]:
        """Return the living ones, as a scope does."""
        return [process_of(pid) for pid in sorted(self.memory)]

    def alive(self, process: Process) -> bool:
        return process.pid in self.memory

    def resident(self, process: Process) -> Iterator[Resident]:
        """See Eyes: group by group."""
        pages = sorted(self.memory.get(process.pid, {}).items())
        self._count()
        for at in range(0, len(pages), self.group):
            yield self._resident(pages[at : at + self.group])

    def _resident(self, pages: list[tuple[int, Page]]) -> Resident:
        rows = [
            (at + part * PAGE, page.pfn + part, page, at)
            for at, page in pages
            for part in range(page.size // PAGE)
        ]
        return Resident(
            addresses=np.array([row[0] for row in rows], np.uint64),
            pfns=np.array([row[1] for row in rows], np.uint64),
            nodes=np.array([row[2].node for row in rows], np.int32),
            shared=np.array([self.mapcount(row[2]) > 1 for row in rows], np.bool_),
            program=np.array([row[3] in self.programs for row in rows], np.bool_),
        )

    def _by_pfn(self) -> Mapping[int, Page]:
        return {
            page.pfn + part: page
            for pages in self.memory.copy().values()
            for page in pages.values()
            for part in range(page.size // PAGE)
        }

    def flags(self, pfns: Iterable[Any]) -> Any:
        """See PageFlags."""
        known = self._by_pfn()
        return np.array([self._flags_of(known.get(int(pfn)), int(pfn)) for pfn in pfns], np.uint64)

    def _flags_of(self, page: Page | None, pfn: int) -> int:
        if page is None:
            return _FREE  # Its page has moved since.
        if page.size == PAGE:
            return page.flags
        return page.flags | int(KPF_COMPOUND_HEAD if pfn == page.pfn else KPF_COMPOUND_TAIL)

    def mapcounts(self, pfns: Iterable[Any]) -> Any:
        """See PageFlags."""
        self._count()
        known = self._by_pfn()
        found = (known.get(int(pfn)) for pfn in pfns)
        return np.array([0 if page is None else self.mapcount(page) for page in found], np.uint64)

    def eyes(self, _: object) -> Eyes:
        """Return what looks at these pages, in place of Eyes(root)."""
        return _FakeEyes(self)

    def migrate_pages(self, pid: int, old: Iterable[int], new: Iterable[int]) -> int:
        """Move all at once, as far as each page can move."""
        old, new = frozenset(old), frozenset(new)
        self.whole.append((pid, old, new))
        if pid not in self.memory:
            raise OSError(errno.ESRCH, "no such process")
        left = 0
        for page in self.memory[pid].values():
            stays = page.held or page.off_list or page.device or new <= self.full
            if page.node in old and stays:
                left += 1
            elif page.node in old:
                self._move(page, min(new))
        return left

    def move_pages(self, pid: int, addresses: Any, nodes: Any, status: Any, flags: int, /) -> int:
        """See move_pages_raw."""
        if nodes is not None:
            self.calls.append((pid, len(addresses), flags))
            self.before(pid)
        status[:] = -4096
        self._count()
        if pid not in self.memory:
            raise OSError(errno.ESRCH, "no such process")
        if nodes is None:
            status[:] = [self._where(pid, int(at)) for at in addresses]
            return 0
        return _Call(self, pid, addresses.tolist(), nodes.tolist(), status, flags).run()

    def _where(self, pid: int, address: int) -> int:
        page = self.memory[pid].get(address)
        if page is None:
            return -errno.ENOENT
        return -errno.EFAULT if page.device else page.node

    def take(self, pid: int, address: int, target: int, flags: int) -> int | Page:
        """Return the page, the node that it is on already, or why it cannot be taken."""
        page = self.memory[pid].get(address)
        if page is None or page.device:
            return -errno.ENOENT if page is None else -errno.EFAULT
        if page.node == target:
            return target
        if self.mapcount(page) > 1 and not flags & MPOL_MF_MOVE_ALL:
            return -errno.EACCES
        if page.off_list:
            page.off_list -= 1
            return -errno.EBUSY
        return page

    def move_taken(self, pages: list[Page], target: int) -> int:
        """Return how many did not move, or -ENOMEM."""
        if pages and target in self.full:
            return -errno.ENOMEM
        left = 0
        for page in pages:
            if page.held:
                page.held -= page.held > 0
                left += 1
            else:
                self._move(page, target)
        return left

    def _move(self, page: Page, target: int) -> None:
        page.node, page.pfn = target, next(self._pfns)


class _FakeEyes(Eyes):
    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self.flags = kernel  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        pass

    def resident(self, process: Process) -> Iterator[Resident]:
        return self._kernel.resident(process)


class _Call:
    def __init__(
        self,
        kernel: FakeKernel,
        pid: int,
        addresses: list[int],
        nodes: list[int],
        status: Any,
        flags: int,
    ) -> None:
        self._kernel, self._pid, self._flags = kernel, pid, flags
        self._addresses, self._nodes, self._status = addresses, nodes, status
        self._taken: dict[int, Page] = {}

    def run(self) -> int:
        target, count = -1, len(self._addresses)
        for at, (address, node) in enumerate(zip(self._addresses, self._nodes, strict=True)):
            if self._taken and node != target and (left := self._flush(target)):
                return left + count - at
            target = node
            found = self._kernel.take(self._pid, address, node, self._flags)
            if isinstance(found, Page):
                self._taken[at] = found
                continue
            self._status[at] = found
            if left := self._flush(target):
                return left + count - at - 1
        return self._flush(target)

    def _flush(self, target: int) -> int:
        left = self._kernel.move_taken(list(self._taken.values()), target)
        if left < 0:
            raise OSError(-left, "cannot allocate memory")
        if not left:
            for at in self._taken:
                self._status[at] = target
            self._taken = {}
        return left


def process_of(pid: int) -> Process:
    """Return a process of that number."""
    return Process(pid=pid, start_time=pid, name="work", uid=0, ppid=1)
