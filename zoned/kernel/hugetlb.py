# SPDX-License-Identifier: Apache-2.0
"""The kernel's pools of huge pages, and pages of them that lie where a device can reach.

Source: Documentation/admin-guide/mm/hugetlbpage.rst. Of mm/hugetlb.c is relied upon that a page
that was freed is the next that is given (enqueue_hugetlb_folio, dequeue_hugetlb_folio_node_exact),
and each time it is looked whether that held.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zoned.errors import MachineError
from zoned.kernel.huge_file import HugeFile
from zoned.kernel.root import read_int, write_text
from zoned.model.dma.offer import Span
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from zoned.kernel.root import Root

_MISSES = 4096
"""Pages that are looked at in vain before the search ends: each is wiped, which takes time."""
_TRIES = 3
_FIRST = 64
"""Places of a new file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool:
    """The huge pages of one size on one node, counted in pages."""

    total: int
    free: int
    surplus: int = 0
    """made beyond the pool's size; the kernel drops as many as come free"""

    @property
    def lasting(self) -> int:
        """The size that the pool was given."""
        return self.total - self.surplus


def read_pool(root: Root, node: int, page: int) -> NodePool | None:
    """Return the node's pool of pages of `page` bytes; None where there is none.

    Raises MachineError for a file that cannot be read.
    """
    folder = _folder(root, node, page)
    total = read_int(folder / "nr_hugepages")
    free = read_int(folder / "free_hugepages")
    if total is None or free is None:
        return None
    surplus = read_int(folder / "surplus_hugepages") or 0
    return NodePool(total=total, free=free, surplus=surplus)


def set_pool(root: Root, node: int, page: int, pages: int) -> int:
    """Have the node's pool be of so many pages; return of how many it is then.

    Fewer than asked for where the node has no more room for such pages; more where those to go are
    in use: they go when they come free. It takes a while where many are to come. Raises
    KernelRefused, and MachineError where the pool cannot be read back.
    """
    path = _folder(root, node, page) / "nr_hugepages"
    write_text(path, str(pages))
    found = read_pool(root, node, page)
    if found is None:
        raise MachineError(f"cannot read {path} back")
    return found.lasting


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same addresses in ascending order, neighbours as one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and found[-1].end == span.start:
            found[-1] = Span(found[-1].start, found[-1].size + span.size)
        else:
            found.append(span)
    return tuple(found)


class File(Protocol):
    """What a pool needs of a `HugeFile`."""

    places: int

    def close(self) -> None: ...
    def detach(self) -> int: ...
    def seal(self) -> None: ...
    def resize(self, places: int) -> None: ...
    def take(self, place: int) -> bool: ...
    def free(self, place: int) -> None: ...
    def address(self, place: int) -> int | None: ...


class HugePool:
    """Huge pages of one node that this process holds in a file of its own. Thread-safe.

    They are free again when it is closed, or this process ends.
    """

    def __init__(
        self, root: Root, node: int, page: int, files: Callable[[int], File] | None = None
    ) -> None:
        """Take the size of pages in bytes, and what makes a file for so many pages.

        Raises Unsupported where the kernel has no such pages, or hides where pages lie.
        """
        self._root, self._node, self._page = root, node, page
        self._files = files or (lambda places: HugeFile(root, node, page, places))
        self._lock = threading.Lock()
        self._file = self._files(_FIRST)
        self._held: set[int] = set()
        """places of the file that have a page"""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all pages back to the node's pool, but for those that were lent."""
        with self._lock:
            self._held.clear()
            self._file.close()

    @property
    def page(self) -> int:
        """The size of each page in bytes."""
        return self._page

    @property
    def spans(self) -> tuple[Span, ...]:
        """The pages held now, one span for each, in the file's order.

        They are looked up each time: the kernel can move them. Raises MachineError.
        """
        with self._lock:
            found = self._addresses()
        return tuple(Span(found[place], self._page) for place in sorted(found))

    def gather(self, spans: Iterable[Span], pages: int | None = None) -> tuple[Span, ...]:
        """Take those of the pages in these spans that are free, or only so many; return them.

        This is how pages come back that were lent. Raises MachineError.
        """
        with self._lock:
            found = self._fetch(self._split(spans), pages)
        return tuple(Span(at, self._page) for at in found)

    def drop(self, spans: Iterable[Span]) -> None:
        """Give pages back to the node's pool; what is not held is left out. Raises MachineError."""
        gone = set(self._split(spans))
        with self._lock:
            self._free([place for place, at in self._addresses().items() if at in gone])

    def lend(self, spans: Sequence[Span]) -> int:
        """Return the descriptor of a new file, sealed, that has exactly these pages in this order,
        wiped. They are not in this pool any more.

        Raises MachineError where they are not all held, or the kernel gives others; the pool is
        whole then, but for pages that somebody else got meanwhile.
        """
        wanted = self._split(spans)
        with self._lock:
            where = {at: place for place, at in self._addresses().items()}
            self._refuse_odd(wanted, where)
            file = self._files(len(wanted))
            try:
                for place, at in enumerate(wanted):
                    self._hand_over(where[at], file, place, at)
                file.seal()
            except MachineError:
                file.close()
                self._fetch(wanted)
                raise
            return file.detach()

    def _refuse_odd(self, wanted: Sequence[int], where: Container[int]) -> None:
        if not wanted or len(set(wanted)) != len(wanted) or any(at not in where for at in wanted):
            raise MachineError(f"the pool does not hold all of the {len(wanted)} pages asked for")
        found = read_pool(self._root, self._node, self._page)
        if found is not None and found.surplus:
            raise MachineError(
                f"node {self._node} has {found.surplus} huge pages of {format_size(self._page)}"
                " beyond its pool, so pages that come free would leave it",
                hint="vm.nr_overcommit_hugepages makes such pages",
            )

    def _hand_over(self, mine: int, file: File, place: int, at: int) -> None:
        """Free a page here and take it there. Nobody else gets it, unless at the same moment."""
        for _ in range(_TRIES):
            self._free([mine])
            if file.take(place) and file.address(place) == at:
                return
            found = self._gather(1, lambda there: there == at)
            # After the search, which would else have found this one again and again.
            file.free(place)
            if at not in found:
                break
            mine = found[at]
        raise MachineError(
            f"the huge page at {at:#x} went to somebody else while it was handed over",
            hint="try again",
        )

    def _fetch(self, wanted: Iterable[int], pages: int | None = None) -> dict[int, int]:
        """Take those of the pages that are free and not held; return address -> place."""
        missing = set(wanted) - set(self._addresses().values())
        count = len(missing) if pages is None else min(pages, len(missing))
        return self._gather(count, missing.__contains__)

    def _gather(self, count: int, fits: Callable[[int], bool]) -> dict[int, int]:
        """Take free pages until so many fit; return address -> place. The others are freed."""
        found: dict[int, int] = {}
        misses: list[int] = []
        empty = self._empty()
        try:
            while len(found) < count and len(misses) < _MISSES and self._any_free():
                place = next(empty)
                if not self._file.take(place):
                    break
                misses.append(place)
                at = self._file.address(place)
                if at is not None and fits(at):
                    self._held.add(misses.pop())
                    found[at] = place
        finally:
            # The last one first: so they lie as they did before.
            self._free(misses[::-1])
        return found

    def _empty(self) -> Iterator[int]:
        """Yield places of the file that had no page when this began, for ever."""
        for place in itertools.count():
            if place >= self._file.places:
                self._file.resize(2 * self._file.places)
            if place not in self._held:
                yield place

    def _any_free(self) -> bool:
        # Beyond its pool the kernel may make pages anew, which come from anywhere on the node.
        found = read_pool(self._root, self._node, self._page)
        return found is not None and found.free > 0

    def _free(self, places: Iterable[int]) -> None:
        for place in places:
            self._file.free(place)
            self._held.discard(place)

    def _addresses(self) -> dict[int, int]:
        """Return place -> physical address of the pages held."""
        found = {place: self._file.address(place) for place in self._held}
        return {place: at for place, at in found.items() if at is not None}

    def _split(self, spans: Iterable[Span]) -> list[int]:
        """Return the addresses of the pages in these spans."""
        return [at for span in spans for at in range(span.start, span.end, self._page)]


def _folder(root: Root, node: int, page: int) -> Path:
    name = f"hugepages/hugepages-{page >> 10}kB"
    folder = root.sys / f"devices/system/node/node{node}"
    return folder / name if folder.is_dir() or node else root.sys / "kernel/mm" / name
