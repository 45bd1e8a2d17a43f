# SPDX-License-Identifier: Apache-2.0
"""What the pages of a block are, from lists of page frames made of files."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest

from zoned.errors import MachineError, Unsupported
from zoned.kernel import block_pages
from zoned.kernel.block_pages import BlockReader
from zoned.kernel.root import sysroot
from zoned.model.block import BlockPages
from zoned.model.topology import Block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from zoned.kernel.root import Root

PAGE = mmap.PAGESIZE
PAGES = 64
BLOCK = Block(id=1, start=PAGES * PAGE, size=PAGES * PAGE, state=None)

# include/uapi/linux/kernel-page-flags.h
LRU, SLAB, BUDDY, ANON, HEAD, TAIL, HUGE = (1 << bit for bit in (5, 7, 10, 12, 15, 16, 17))
UNEVICTABLE, HWPOISON, NOPAGE, THP, OFFLINE, ZERO, PGTABLE = (
    1 << bit for bit in (18, 19, 20, 22, 23, 24, 26)
)
RESERVED = 1 << 32


def machine(
    folder: Path, flags: Sequence[int], groups: Sequence[int] | None = None, iomem: str = ""
) -> Root:
    """Make a machine whose block 1 has these flags and groups, the rest of it being free."""
    (folder / "proc").mkdir(exist_ok=True)
    lists = {"kpageflags": (flags, BUDDY), "kpagecgroup": (groups or (), 0)}
    for name, (words, filler) in lists.items():
        padded = [filler] * PAGES + [*words] + [filler] * (PAGES - len(words))
        (folder / "proc" / name).write_bytes(struct.pack(f"={len(padded)}Q", *padded))
    (folder / "proc/iomem").write_text(iomem)
    return sysroot(folder)


def read(root: Root, block: Block = BLOCK) -> BlockPages:
    with BlockReader(root) as reader:
        return reader.read(block)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (LRU, {"movable": 1}),
        (LRU | ANON, {"movable": 1}),
        (UNEVICTABLE, {"movable": 1}),
        (THP | ANON | TAIL, {"movable": 1}),
        (HUGE | HEAD, {"huge": 1}),
        (SLAB, {"slab": 1}),
        (SLAB | TAIL, {"slab": 1}),
        (PGTABLE, {"page tables": 1}),
        (RESERVED, {"reserved": 1}),
        (RESERVED | LRU, {"reserved": 1}),
        (THP | ZERO, {"other": 1}),
        (OFFLINE, {"ballooned": 1}),
        (TAIL, {"other": 1}),
        (0, {"plain": 1}),
        (1 << 3, {"other": 1}),
        (NOPAGE, {"holes": 1}),
        (HWPOISON | LRU, {}),
        (BUDDY, {"free": 1}),
    ],
)
def test_each_kind_of_page(tmp_path: Path, flags: int, expected: Mapping[str, int]) -> None:
    found = read(machine(tmp_path, [flags]))
    named = {
        "free": found.free - (PAGES - 1),
        "movable": found.movable,
        "huge": found.huge,
        "holes": found.holes,
        **found.unmovable,
    }
    assert {kind: number for kind, number in named.items() if number} == expected
    assert found.total == PAGES


def test_all_are_counted(tmp_path: Path) -> None:
    flags = [SLAB] * 3 + [LRU] * 5 + [PGTABLE] * 2 + [RESERVED] * 7 + [0] * 4 + [HUGE] * 6
    assert read(machine(tmp_path, flags)) == BlockPages(
        total=PAGES,
        free=PAGES - 27,
        movable=5,
        huge=6,
        unmovable={"slab": 3, "page tables": 2, "reserved": 7, "plain": 4},
    )


@pytest.mark.parametrize("mark", [1 << 37, 1 << 37 | RESERVED])
def test_the_blocks_own_memory_map_keeps_it_not(tmp_path: Path, mark: int) -> None:
    flags = [mark] * 8 + [LRU] * 3 + [mark] * 2
    found = read(machine(tmp_path, flags))
    assert (found.movable, found.free) == (3, PAGES - 13)
    assert sum(found.unmovable.values()) == 2


def test_memory_in_use_at_the_blocks_start_is_no_map(tmp_path: Path) -> None:
    assert read(machine(tmp_path, [1 << 37 | LRU] * 8)).movable == 8


def test_what_the_list_does_not_reach_is_a_hole(tmp_path: Path) -> None:
    beyond = Block(id=9, start=9 * PAGES * PAGE, size=PAGES * PAGE, state=None)
    assert read(machine(tmp_path, []), beyond) == BlockPages(total=PAGES, holes=PAGES)


def ram(*ranges: tuple[float, float]) -> str:
    """Return /proc/iomem with these ranges of pages, counted from the block's first."""
    return "".join(
        f"{int((PAGES + start) * PAGE):08x}-{int((PAGES + end) * PAGE) - 1:08x} : System RAM\n"
        "  00000000-00000fff : Kernel code\n"
        for start, end in ranges
    )


@pytest.mark.parametrize(
    ("ranges", "holes"),
    [
        (((-10, PAGES + 10),), 0),
        (((0, PAGES),), 0),
        (((0, 30), (30, PAGES)), 0),
        (((0, 30), (40, PAGES)), 10),
        (((3, PAGES - 2),), 5),
        # A page that is not whole is none.
        (((0.5, PAGES - 0.5),), 2),
        (((-20, -10),), PAGES),
    ],
)
def test_memory_that_the_firmware_keeps_is_a_hole(
    tmp_path: Path, ranges: tuple[tuple[float, float], ...], holes: int
) -> None:
    found = read(machine(tmp_path, [RESERVED] * 10, iomem=ram(*ranges)))
    assert found.holes == holes
    assert found.unmovable == {"reserved": 10}


def test_memory_of_drivers_counts(tmp_path: Path) -> None:
    text = ram((0, 30)) + ram((30, PAGES)).replace("System RAM", "System RAM (kmem)")
    assert read(machine(tmp_path, [], iomem=text)).holes == 0


def test_what_is_no_memory_does_not_count(tmp_path: Path) -> None:
    text = ram((0, 30)) + ram((30, PAGES)).replace("System RAM", "System ROM")
    assert read(machine(tmp_path, [], iomem=text)).holes == PAGES - 30


def test_without_addresses_no_holes_are_known(tmp_path: Path) -> None:
    text = "00000000-00000000 : System RAM\n"
    assert read(machine(tmp_path, [], iomem=text)).holes == 0


@pytest.fixture
def small_giants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let eight pages make a gigantic one."""
    monkeypatch.setattr(block_pages, "_GIGANTIC", 8 * PAGE)


GIANT = [HUGE | HEAD] + [HUGE | TAIL] * 7
USUAL = [HUGE | HEAD] + [HUGE | TAIL] * 3


@pytest.mark.usefixtures("small_giants")
@pytest.mark.parametrize(
    ("flags", "huge", "gigantic"),
    [
        (USUAL * 4, 16, 0),
        (GIANT, 0, 8),
        (GIANT * 2, 0, 16),
        (USUAL + GIANT + USUAL, 8, 8),
        (USUAL + [LRU] * 9 + GIANT + [LRU] + USUAL, 8, 8),
        # Begun in the block before.
        ([HUGE | TAIL] * 3 + USUAL, 4, 3),
        ([HUGE | TAIL] * PAGES, 0, PAGES),
        # On into the block behind.
        ([0] * (PAGES - 8) + GIANT, 0, 8),
    ],
)
def test_gigantic_pages(tmp_path: Path, flags: list[int], huge: int, gigantic: int) -> None:
    found = read(machine(tmp_path, flags))
    assert (found.huge, found.unmovable.get("gigantic pages", 0)) == (huge, gigantic)


def test_whose_the_pages_are(tmp_path: Path) -> None:
    root = machine(tmp_path, [LRU] * 6, [7, 7, 9, 0, 9, 7])
    assert read(root).owners == {7: 3 * PAGE, 9: 2 * PAGE}


def test_a_large_page_is_of_the_group_of_its_first(tmp_path: Path) -> None:
    head, tail = THP | HEAD, THP | TAIL
    flags = [tail, head, tail, tail, LRU, head, tail]
    assert read(machine(tmp_path, flags, [0, 7, 0, 0, 0, 9, 9])).owners == {
        7: 3 * PAGE,
        9: 2 * PAGE,
    }


def test_a_kernel_without_groups(tmp_path: Path) -> None:
    root = machine(tmp_path, [LRU])
    (tmp_path / "proc/kpagecgroup").unlink()
    found = read(root)
    assert (found.movable, found.owners) == (1, {})


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - not to open more than it counts


def test_a_kernel_without_the_list(tmp_path: Path) -> None:
    root = machine(tmp_path, [])
    (tmp_path / "proc/kpageflags").unlink()
    before = open_files()
    with pytest.raises(Unsupported, match="kpageflags"):
        BlockReader(root)
    assert open_files() == before


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = open_files()
    read(machine(tmp_path, []))
    assert open_files() == before


def test_nothing_stays_open_where_opening_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path, [])
    real = os.open

    def refuse(path: Path, flags: int) -> int:
        if path.name == "kpagecgroup":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    before = open_files()
    with pytest.raises(MachineError, match="Too many open files"):
        BlockReader(root)
    assert open_files() == before


def test_a_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][:24]], at))
    found = read(machine(tmp_path, [SLAB] * 40 + [LRU] * 24))
    assert (found.unmovable, found.movable) == ({"slab": 40}, 24)


def test_a_block_of_unknown_size(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="block 4"):
        read(machine(tmp_path, []), Block(id=4, start=0, size=None, state=None))
