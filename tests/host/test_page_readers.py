# SPDX-License-Identifier: Apache-2.0
"""The readers of page tables and page frames, on memory of the test's own.

What they say is compared with smaps, numa_maps and move_pages(2): other ways to the same facts.
"""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from zoned.kernel.maps import mappings
from zoned.kernel.page_flags import (
    KPF_ANON,
    KPF_COMPOUND_HEAD,
    KPF_COMPOUND_TAIL,
    KPF_HUGE,
    KPF_MLOCKED,
    KPF_NOPAGE,
    KPF_THP,
    KPF_UNEVICTABLE,
    KPF_ZERO_PAGE,
    PageFlags,
)
from zoned.kernel.page_nodes import PageNodes
from zoned.kernel.pagemap import WINDOW, PageMap, Pages
from zoned.kernel.root import Root
from zoned.kernel.syscalls import NOT_TRIED, move_pages_raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("page_lists")]

ROOT = Root()
PAGE = mmap.PAGESIZE
HUGE = 2 << 20
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
_NORESERVE = 0x4000


class Memory:
    """A mapping, its address, and a way to touch it."""

    def __init__(self, size: int, flags: int = PRIVATE) -> None:
        self.map = mmap.mmap(-1, size, flags=flags)
        self.size = size
        self.bytes: npt.NDArray[np.uint8] | None = np.frombuffer(self.map, np.uint8)
        self.start: int = self.bytes.__array_interface__["data"][0]
        self.end = self.start + size

    def touch(self, *pages: int) -> None:
        for page in pages:
            self.map[page * PAGE] = 1

    def close(self) -> None:
        self.bytes = None
        self.map.close()


@pytest.fixture
def page_map() -> Iterator[PageMap]:
    with PageMap(ROOT, os.getpid()) as opened:
        yield opened


@pytest.fixture
def lists() -> Iterator[PageFlags]:
    with PageFlags(ROOT) as opened:
        yield opened


def smaps(memory: Memory) -> dict[str, int]:
    """Return what smaps says of the mapping, in bytes; it must be a mapping of its own."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE)
    (part,) = (part for part in parts if part.startswith(f"{memory.start:x}-"))
    assert part.split()[0] == f"{memory.start:x}-{memory.end:x}"
    return {key: int(kib) * 1024 for key, kib in re.findall(r"^(\w+): +(\d+) kB", part, re.M)}


def apart(size: int, flags: int = PRIVATE) -> Memory:
    """Return memory that the kernel does not merge with another mapping: it has its own advice."""
    memory = Memory(size, flags)
    memory.map.madvise(mmap.MADV_DONTDUMP)
    memory.map.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def everywhere(page_map: PageMap, memory: Memory) -> list[int]:
    """Return the addresses of all resident pages, found by way of `present`."""
    ranges = list(page_map.present(memory.start, memory.end))
    assert all(end - start <= WINDOW * PAGE for start, end in ranges)
    return [
        address
        for start, end in ranges
        for address in page_map.pages(start, end).addresses.tolist()
    ]


def test_pages_are_those_that_were_touched(page_map: PageMap) -> None:
    memory = apart(64 * PAGE)
    memory.touch(0, 1, 7, 63)
    found = page_map.pages(memory.start, memory.end)
    assert found.addresses.tolist() == [memory.start + page * PAGE for page in (0, 1, 7, 63)]
    assert len(found.addresses) * PAGE == smaps(memory)["Rss"]
    assert found.exclusive.all()
    assert not found.file.any()
    assert found.swapped == 0
    memory.close()


def test_shared_memory_is_of_a_file_to_the_kernel(page_map: PageMap) -> None:
    memory = apart(8 * PAGE, SHARED)
    memory.touch(*range(8))
    found = page_map.pages(memory.start, memory.end)
    assert len(found.pfns) == 8
    assert found.file.all()
    (mapping,) = (one for one in mappings(ROOT, os.getpid()) if one.start == memory.start)
    assert (mapping.shared, mapping.file) == (True, False)
    memory.close()


def test_a_page_that_a_child_maps_too(page_map: PageMap, lists: PageFlags) -> None:
    memory = apart(4 * PAGE)
    memory.touch(*range(4))
    go, wait = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(wait)
        os.read(go, 1)
        os._exit(0)
    try:
        memory.touch(1)
        found = page_map.pages(memory.start, memory.end)
        assert found.exclusive.tolist() == [False, True, False, False]
        assert lists.mapcounts(found.pfns).tolist() == [2, 1, 2, 2]
        with PageMap(ROOT, child) as other:
            theirs = other.pages(memory.start, memory.end)
        assert (theirs.pfns == found.pfns).tolist() == [True, False, True, True]
    finally:
        os.close(wait)
        os.waitpid(child, 0)
        os.close(go)
    assert lists.mapcounts(found.pfns[[0, 2, 3]]).tolist() == [1, 1, 1]
    memory.close()


def test_flags_of_anonymous_pages(page_map: PageMap, lists: PageFlags) -> None:
    memory = apart(16 * PAGE)
    memory.touch(*range(16))
    found = page_map.pages(memory.start, memory.end)
    flags = lists.flags(found.pfns)
    assert (flags & KPF_ANON).all()
    assert not (flags & (KPF_HUGE | KPF_THP | KPF_NOPAGE | KPF_ZERO_PAGE)).any()
    memory.close()


def test_the_zero_page(page_map: PageMap, lists: PageFlags) -> None:
    memory = apart(2 * PAGE)
    assert memory.map[0] == 0
    found = page_map.pages(memory.start, memory.end)
    assert len(found.pfns) == 1
    assert (lists.flags(found.pfns) & KPF_ZERO_PAGE).all()
    memory.close()


# Locks one page more than nothing, tells its address, and waits for its input to end.
_LOCKER = """
import ctypes, mmap, sys
memory = mmap.mmap(-1, 4 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
libc.mlock.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
for page in range(4):
    memory[page * mmap.PAGESIZE] = 1
if libc.mlock(place, 2 * mmap.PAGESIZE):
    print(-ctypes.get_errno(), flush=True)
else:
    print(place, flush=True)
sys.stdin.read()
"""


def test_locked_pages_of_another_process(lists: PageFlags) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _LOCKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        place = int(child.stdout.readline())
        if place < 0:
            pytest.skip(f"cannot lock memory: {os.strerror(-place)}")
        with PageMap(ROOT, child.pid) as page_map:
            found = page_map.pages(place, place + 4 * PAGE)
        flags = lists.flags(found.pfns)
        assert ((flags & KPF_MLOCKED) != 0).tolist() == [True, True, False, False]
        assert not (flags[2:] & KPF_UNEVICTABLE).any()


def test_frames_beyond_all_memory(lists: PageFlags) -> None:
    beyond = np.array([1 << 50], np.uint64)
    assert lists.flags(beyond) == KPF_NOPAGE
    assert lists.mapcounts(beyond) == 0


def statuses(pages: Pages) -> npt.NDArray[np.int32]:
    status = np.zeros(len(pages.addresses), np.int32)
    assert move_pages_raw(os.getpid(), pages.addresses, None, status) == 0
    return status


def test_nodes_are_what_the_kernel_says(page_map: PageMap) -> None:
    memory = apart(20000 * PAGE)
    memory.touch(*range(0, 20000, 2))
    found = page_map.pages(memory.start, memory.end)
    nodes = PageNodes(ROOT).nodes(found.pfns)
    if (nodes < 0).all():
        pytest.skip("this kernel has no memory blocks with nodes")
    told = statuses(found)
    known = nodes >= 0
    assert NOT_TRIED not in told
    assert (nodes[known] == told[known]).all()
    text = Path("/proc/self/numa_maps").read_text(encoding="utf-8", errors="replace")
    (line,) = (line for line in text.splitlines() if line.startswith(f"{memory.start:08x} "))
    counts = {int(node): int(count) for node, count in re.findall(r" N(\d+)=(\d+)", line)}
    assert counts == {int(node): int((told == node).sum()) for node in set(told.tolist())}
    memory.close()


def scans(page_map: PageMap) -> bool:
    """Tell whether the kernel has the ioctl: a hole is then not yielded."""
    memory = apart(PAGE)
    found = list(page_map.present(memory.start, memory.end))
    memory.close()
    return not found


def test_both_ways_find_the_same_pages(page_map: PageMap) -> None:
    if not scans(page_map):
        pytest.skip("this kernel has no PAGEMAP_SCAN")
    memory = apart(16 << 30, PRIVATE | _NORESERVE)
    last = memory.size // PAGE - 1
    touched = sorted({0, 1, 511, 512, 1024, 1025, 3000, WINDOW, last - WINDOW, last})
    touched += [number * 5000 + 100_000 for number in range(500)]
    touched += range(3_000_000, 3_000_300, 3)
    memory.touch(*touched)
    scanned = everywhere(page_map, memory)
    page_map._scans = False
    read = everywhere(page_map, memory)
    assert scanned == read == sorted(memory.start + page * PAGE for page in touched)
    memory.close()


def test_more_regions_than_one_scan_tells(page_map: PageMap) -> None:
    memory = apart(20000 * PAGE)
    memory.touch(*range(0, 20000, 2))
    assert len(everywhere(page_map, memory)) == 10000
    memory.close()


def test_more_pages_than_one_scan_tells(page_map: PageMap) -> None:
    memory = apart((WINDOW + 100) * PAGE)
    assert memory.bytes is not None
    memory.bytes.flags.writeable = True
    memory.bytes[::PAGE] = 1
    assert len(everywhere(page_map, memory)) == WINDOW + 100
    memory.close()


def test_heads_of_huge_pages(page_map: PageMap, lists: PageFlags) -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("no transparent huge pages here")
    memory = Memory(8 * HUGE)
    memory.map.madvise(mmap.MADV_DONTDUMP)
    memory.map.madvise(mmap.MADV_HUGEPAGE)
    memory.touch(*range(memory.size // PAGE))
    expected = smaps(memory)["AnonHugePages"]
    if not expected:
        pytest.skip("the machine gave no huge page")
    found = page_map.pages(memory.start, memory.end)
    flags = lists.flags(found.pfns)
    heads = (flags & KPF_THP != 0) & (flags & KPF_COMPOUND_HEAD != 0)
    aligned = heads & (found.addresses % np.uint64(HUGE) == 0)
    assert int(aligned.sum()) * HUGE == expected
    first = int(np.flatnonzero(aligned)[0])
    rest = slice(first + 1, first + HUGE // PAGE)
    assert (flags[rest] & KPF_COMPOUND_TAIL).all()
    assert not (flags[rest] & KPF_COMPOUND_HEAD).any()
    assert (np.diff(found.pfns[first : rest.stop]) == 1).all()
    memory.close()


def test_pages_of_a_file(page_map: PageMap, lists: PageFlags) -> None:
    with tempfile.NamedTemporaryFile(dir=Path(__file__).parent) as file:
        file.write(b"x" * 4 * PAGE)
        file.flush()
        with mmap.mmap(file.fileno(), 4 * PAGE, prot=mmap.PROT_READ) as mapped:
            assert mapped[::PAGE] == b"xxxx"
            (mapping,) = (one for one in mappings(ROOT, os.getpid()) if one.name == file.name)
            found = page_map.pages(mapping.start, mapping.end)
    assert (mapping.file, mapping.executable, mapping.end - mapping.start) == (
        True,
        False,
        4 * PAGE,
    )
    assert len(found.pfns) == 4
    assert found.file.all()
    assert not (lists.flags(found.pfns) & (KPF_ANON | KPF_HUGE)).any()


def test_the_mappings_are_those_of_smaps() -> None:
    text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    heads = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (....) .*$", text, re.M)
    expected = {(int(start, 16), int(end, 16), access[2:]) for start, end, access in heads}
    found = {
        (one.start, one.end, ("x" if one.executable else "-") + ("s" if one.shared else "p"))
        for one in mappings(ROOT, os.getpid())
    }
    # Python's own arenas come and go between the two looks.
    assert len(found & expected) >= 0.9 * len(expected)
