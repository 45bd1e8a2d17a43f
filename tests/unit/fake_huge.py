# SPDX-License-Identifier: Apache-2.0
"""A node's pool of huge pages, and files made of them, as the kernel does it: the page that was
freed last is the next that is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.unit.fake_sys import NODES, write
from zoned.kernel.hugetlb import HugePool
from zoned.kernel.root import sysroot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from zoned.kernel.root import Root

HUGE = 2 << 20


@dataclass
class FakeHuge:
    """The huge pages of one node. `free` is in the order in which the kernel gives them."""

    folder: Path
    node: int = 0
    free: list[int] = field(default_factory=list)
    """addresses"""
    used: set[int] = field(default_factory=set)
    surplus: int = 0
    wiped: list[int] = field(default_factory=list)
    supply: Callable[[], Iterable[int]] = tuple
    """return where pages that are made anew lie, in the order in which the kernel makes them"""
    on_take: Callable[[FakeFile], None] = lambda _: None
    files: list[FakeFile] = field(default_factory=list)
    other: FakeHuge | None = None
    """the node that the kernel moves pages to"""

    def __post_init__(self) -> None:
        self.tell()

    def add(self, addresses: Iterable[int]) -> None:
        """Have free pages at these addresses; the first is the next that is given."""
        self.free = [*addresses, *self.free]
        self.tell()

    def resize(self, path: Path, text: str) -> None:
        """Do what a write to the node's `nr_hugepages` does; stands for `write_text`."""
        assert path.name == "nr_hugepages"
        lasting, wanted = len(self.free) + len(self.used) - self.surplus, int(text)
        for at in self.supply():
            if lasting >= wanted:
                break
            if at not in self.free and at not in self.used:
                self.free.insert(0, at)
                lasting += 1
        while lasting > wanted and self.free:
            self.free.pop(0)
            lasting -= 1
        self.surplus = max(0, lasting - wanted)
        self.tell()

    def tell(self) -> None:
        """Write the files of the node."""
        path = f"{NODES}/node{self.node}/hugepages/hugepages-{HUGE >> 10}kB"
        numbers = {
            "nr_hugepages": len(self.free) + len(self.used),
            "free_hugepages": len(self.free),
            "surplus_hugepages": self.surplus,
        }
        write(self.folder, {f"{path}/{name}": str(number) for name, number in numbers.items()})

    def take(self, file: FakeFile) -> int | None:
        """Give the next page."""
        self.on_take(file)
        if not self.free:
            return None
        at = self.free.pop(0)
        self.used.add(at)
        self.wiped.append(at)
        self.tell()
        return at

    def give_back(self, at: int) -> None:
        """Take a page back."""
        if self.other is not None and at in self.other.used:
            self.other.give_back(at)
            return
        self.used.remove(at)
        self.free.insert(0, at)
        self.tell()

    def pool(self, root: Root | None = None, node: int | None = None, page: int = HUGE) -> HugePool:
        """Return a pool of this node's pages."""
        assert (root or sysroot(self.folder), node or self.node, page) == (
            sysroot(self.folder),
            self.node,
            HUGE,
        )
        return HugePool(sysroot(self.folder), self.node, HUGE, self.file)

    def file(self, places: int) -> FakeFile:
        """Return a new file."""
        self.files.append(FakeFile(self, places))
        return self.files[-1]


@dataclass(eq=False)
class FakeFile:
    """See HugeFile. Its descriptor is its position among the files that were made."""

    huge: FakeHuge
    places: int
    pages: dict[int, int] = field(default_factory=dict)
    moving: set[int] = field(default_factory=set)
    """places whose address the kernel does not tell just now"""
    sealed: bool = False
    open: bool = True

    def close(self) -> None:
        assert self.open
        self.open = False
        self.let_go()

    def let_go(self) -> None:
        """Free all pages, as happens when the last one has closed and unmapped the file."""
        for place in sorted(self.pages):
            self.huge.give_back(self.pages.pop(place))

    def detach(self) -> int:
        assert self.open
        self.open = False
        return self.huge.files.index(self)

    def seal(self) -> None:
        self.sealed = True

    def resize(self, places: int) -> None:
        assert not self.sealed
        assert places > max(self.pages, default=-1)
        self.places = places

    def take(self, place: int) -> bool:
        assert place < self.places
        assert place not in self.pages
        at = self.huge.take(self)
        if at is not None:
            self.pages[place] = at
        return at is not None

    def free(self, place: int) -> None:
        if place in self.pages:
            self.huge.give_back(self.pages.pop(place))

    def address(self, place: int) -> int | None:
        return None if place in self.moving else self.pages[place]
