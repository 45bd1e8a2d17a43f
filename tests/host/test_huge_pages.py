# SPDX-License-Identifier: Apache-2.0
"""Pages whose addresses are known: ordinary ones, and huge ones where the machine has some free.

The size of its pools stays as it is.
"""

from __future__ import annotations

import mmap
import os

import pytest

from zoned.kernel.huge_file import HugeFile
from zoned.kernel.hugetlb import HugePool, read_pool
from zoned.kernel.pagemap import PageMap
from zoned.kernel.root import Root
from zoned.model.dma.offer import Span

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("page_lists")]

ROOT = Root()
HUGE = 2 << 20


def addresses(fd: int, pages: int, size: int) -> list[int]:
    """Return where the pages of a file lie, by the other reader of page tables."""
    with mmap.mmap(fd, pages * size) as memory, PageMap(ROOT, os.getpid()) as table:
        for page in range(pages):
            memory[page * size]
        shown = (ROOT.proc / "self/maps").read_text()
        line = next(line for line in shown.splitlines() if "/memfd:zoned" in line)
        start, end = (int(word, 16) for word in line.split()[0].split("-"))
        found = table.pages(start, end)
        return [int(pfn) * mmap.PAGESIZE for pfn in found.pfns[:: size // mmap.PAGESIZE]]


def test_addresses_are_those_of_the_page_table() -> None:
    file = HugeFile(ROOT, 0, mmap.PAGESIZE, 3, huge=False)
    for place in range(3):
        assert file.take(place)
    told = [file.address(place) for place in range(3)]
    fd = file.detach()
    try:
        assert addresses(fd, 3, mmap.PAGESIZE) == told
    finally:
        os.close(fd)


def test_free_huge_pages_are_held_lent_and_given_back() -> None:
    found = read_pool(ROOT, 0, HUGE)
    if found is None or found.free < 3:
        pytest.skip("this machine has no three free huge pages of 2 MiB on node 0")
    end = 2 * os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    with HugePool(ROOT, 0, HUGE) as pool:
        assert len(pool.gather([Span(0, end)], 3)) == 3
        wanted = pool.spans[::-1]
        fd = pool.lend(wanted)
        assert pool.spans == ()
        assert addresses(fd, 3, HUGE) == [span.start for span in wanted]
        os.close(fd)
        assert set(pool.gather(wanted)) == set(wanted)
    assert read_pool(ROOT, 0, HUGE) == found
