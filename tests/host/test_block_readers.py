# SPDX-License-Identifier: Apache-2.0
"""What lies in this machine's memory blocks. Nothing is changed: they are only looked at."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from zoned.kernel.block_outlook import outlooks
from zoned.kernel.block_pages import BlockReader
from zoned.kernel.cgroup.inodes import cgroup_paths
from zoned.kernel.memory_block import read_block, read_blocks
from zoned.kernel.page_flags import KPF_RESERVED, PageFlags
from zoned.kernel.pagemap import PageMap
from zoned.kernel.root import Root
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.model.topology import Block

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("page_lists")]

ROOT = Root()
PAGE = mmap.PAGESIZE


@pytest.fixture(scope="module")
def blocks() -> tuple[Block, ...]:
    found = read_blocks(ROOT)
    if not found:
        pytest.skip("this machine has no memory blocks")
    return found


@pytest.fixture
def held() -> Iterator[mmap.mmap]:
    """8 MiB of small pages, all of them there."""
    memory = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for place in range(0, len(memory), PAGE):
        memory[place] = 1
    yield memory
    memory.close()


def frames(memory: mmap.mmap) -> dict[int, int]:
    """Return block -> how many pages of the memory lie in it, from this process's page table."""
    size = read_blocks(ROOT)[0].size
    assert size is not None
    view = np.frombuffer(memory, np.uint8)
    start: int = view.__array_interface__["data"][0]
    with PageMap(ROOT, os.getpid()) as page_map:
        numbers = (
            page_map.pages(start, start + len(memory)).pfns * np.uint64(PAGE) // np.uint64(size)
        )
    found, counts = np.unique(numbers, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def test_one_block_is_read_as_all_are(blocks: tuple[Block, ...]) -> None:
    for block in (blocks[0], blocks[len(blocks) // 2], blocks[-1]):
        assert read_block(ROOT, block.id) == block
    assert read_block(ROOT, 1 << 40) is None


def test_every_page_is_something(blocks: tuple[Block, ...]) -> None:
    with BlockReader(ROOT) as reader:
        for block in blocks[:2] + blocks[-2:]:
            pages = reader.read(block)
            assert block.size == pages.total * PAGE
            named = pages.free + pages.movable + pages.huge + sum(pages.unmovable.values())
            assert 0 <= named <= pages.total
            assert named + pages.holes >= pages.total
            assert sum(pages.owners.values()) <= pages.total * PAGE


def test_memory_of_this_process_is_seen_in_its_block_and_group(
    blocks: tuple[Block, ...], held: mmap.mmap
) -> None:
    where = frames(held)
    assert sum(where.values()) == len(held) // PAGE
    number = max(where, key=lambda each: where[each])
    block = next(each for each in blocks if each.id == number)
    with BlockReader(ROOT) as reader:
        pages = reader.read(block)
    # A few may be on their way to the kernel's lists.
    assert pages.movable >= where[number] - 100
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    groups = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
    group = groups.get("memory") or groups[""]
    paths = cgroup_paths(ROOT)
    if group == "/" or group not in paths.values():
        pytest.skip(f"this process is in no group of its own ({group})")
    charged = {paths[inode]: size for inode, size in pages.owners.items() if inode in paths}
    assert charged[group] >= where[number] * PAGE


def test_flags_are_those_of_the_other_reader(blocks: tuple[Block, ...]) -> None:
    # Reserved at boot, so that no other page comes or goes.
    block = blocks[0]
    assert block.size is not None
    pfns = np.arange(block.start // PAGE, (block.start + block.size) // PAGE, dtype=np.uint64)
    with PageFlags(ROOT) as lists, BlockReader(ROOT) as reader:
        reserved = int((lists.flags(pfns) & KPF_RESERVED != 0).sum())
        assert reader.read(block).unmovable.get("reserved", 0) == reserved


def test_all_blocks_have_an_outlook(blocks: tuple[Block, ...]) -> None:
    for each in outlooks(ROOT, blocks):
        assert (each.can is True) == (each.why == ""), each
        if each.block.state is BlockState.ONLINE:
            assert each.pages is not None
        if each.block.zones == ("none",):
            assert each.can is False
