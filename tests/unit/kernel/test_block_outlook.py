# SPDX-License-Identifier: Apache-2.0
"""Whether a block can go, and what is said of one that cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import MEMORY, NODES, add_block, add_node, link, write
from zoned.kernel.block_outlook import outlook, outlooks
from zoned.kernel.memory_block import read_blocks
from zoned.kernel.root import sysroot
from zoned.model.block import BlockPages
from zoned.model.topology import Block, BlockState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAGES = 32768


def block(*zones: str, state: BlockState | None = BlockState.ONLINE) -> Block:
    return Block(id=3, start=3 << 27, size=PAGES << 12, state=state, zones=zones)


def pages(unmovable: Mapping[str, int] | None = None, holes: int = 0) -> BlockPages:
    return BlockPages(total=PAGES, free=100, unmovable=unmovable or {}, holes=holes)


@pytest.mark.parametrize("zone", ["Normal", "DMA32", "Movable"])
def test_nothing_keeps_it(zone: str) -> None:
    seen = outlook(block(zone), pages())
    assert (seen.can, seen.why) == (True, "")
    assert seen.pages == pages()


@pytest.mark.parametrize(
    ("unmovable", "why"),
    [
        ({"slab": 1}, "4KiB slab cannot move"),
        ({"other": 2}, "8KiB other kernel memory cannot move"),
        ({"plain": 2}, "8KiB plain kernel memory cannot move"),
        ({"page tables": 1, "slab": 384}, "1.5MiB slab and 4KiB page tables cannot move"),
        (
            {"slab": 3, "reserved": 2, "gigantic pages": 1},
            "12KiB slab, 8KiB reserved and 4KiB gigantic pages cannot move",
        ),
        ({"slab": 3, "ballooned": 9}, "12KiB slab cannot move"),
    ],
)
def test_what_keeps_it(unmovable: Mapping[str, int], why: str) -> None:
    seen = outlook(block("Normal"), pages(unmovable))
    assert (seen.can, seen.why) == (False, why)


@pytest.mark.parametrize(
    ("unmovable", "can"),
    [
        ({"other": 3, "slab": 1, "page tables": 1, "plain": 1}, True),
        ({"reserved": 1}, False),
        ({"reserved": 1, "other": 2}, False),
        ({"gigantic pages": 512}, False),
    ],
)
def test_what_keeps_movable_memory(unmovable: Mapping[str, int], can: bool) -> None:  # noqa: FBT001
    assert outlook(block("Movable"), pages(unmovable)).can is can


def test_what_a_driver_decides_is_not_known() -> None:
    seen = outlook(block("Normal"), pages({"ballooned": 256}))
    assert (seen.can, seen.why) == (None, "1MiB ballooned, its driver decides")


@pytest.mark.parametrize(
    ("unmovable", "at_hand", "can", "why"),
    [
        ({"plain": 256}, 256, None, "1MiB may be the kernel's, or free"),
        ({"plain": 257}, 256, False, "1.0MiB plain kernel memory cannot move"),
        ({"plain": 256, "slab": 1}, 256, False, "4KiB slab cannot move"),
        (
            {"plain": 256, "ballooned": 1},
            256,
            None,
            "1MiB may be the kernel's, or free; 4KiB ballooned, its driver decides",
        ),
        ({}, 256, True, ""),
    ],
)
def test_pages_that_a_cpu_may_keep_at_hand(
    unmovable: Mapping[str, int],
    at_hand: int,
    can: bool | None,  # noqa: FBT001
    why: str,
) -> None:
    seen = outlook(block("Normal"), pages(unmovable), at_hand=at_hand)
    assert (seen.can, seen.why) == (can, why)


def test_holes_keep_it_whatever_the_zone() -> None:
    for zone in ("Normal", "Movable"):
        seen = outlook(block(zone), pages(holes=256))
        assert (seen.can, seen.why) == (False, "it has holes: 1MiB of it are no memory")


@pytest.mark.parametrize("seen", [None, pages()])
@pytest.mark.parametrize(
    ("there", "why"),
    [
        (block("none"), "it has holes, or memory of several zones or nodes"),
        (block("Normal", "Movable", state=BlockState.OFFLINE), "it is offline"),
        (block("Normal", state=BlockState.GOING_OFFLINE), "it is on its way out"),
    ],
)
def test_what_is_known_without_a_look(there: Block, why: str, seen: BlockPages | None) -> None:
    told = outlook(there, seen)
    assert (told.can, told.why) == (False, why)


def test_pages_that_are_not_shown() -> None:
    assert outlook(block("Normal"), None).can is None
    seen = outlook(block("Normal"), None, unseen="cannot read it")
    assert (seen.can, seen.why, seen.pages) == (None, "cannot read it", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine whose blocks have 8 pages: online, offline, and of several zones."""
    write(tmp_path, {f"{MEMORY}/block_size_bytes": "8000", "proc/iomem": ""})
    add_block(tmp_path, 0, state="online", zones="none")
    add_block(tmp_path, 1, state="online", zones="Normal")
    add_block(tmp_path, 2, state="offline", zones="Normal Movable")
    add_block(tmp_path, 3, state="online", zones="Normal")
    return tmp_path


def test_each_block_is_looked_at(folder: Path) -> None:
    free, slab = (1 << 10).to_bytes(8, "little"), (1 << 7).to_bytes(8, "little")
    (folder / "proc/kpageflags").write_bytes(free * 24 + slab * 2 + free * 6)
    root = sysroot(folder)
    found = list(outlooks(root, read_blocks(root)))
    assert [each.block.id for each in found] == [0, 1, 2, 3]
    assert [each.can for each in found] == [False, True, False, False]
    assert found[3].why == "8KiB slab cannot move"
    # Only what is online has pages to look at.
    assert [None if each.pages is None else each.pages.free for each in found] == [8, 8, None, 6]


ZONEINFO = """Node 0, zone   Normal
  pages free     1
    cpu: 0
              count:    1
Node 0, zone  Movable
              count:    9
Node 1, zone   Normal
              count:    9
"""


@pytest.mark.parametrize(("count", "can"), [(1, None), (0, False)])
def test_what_cpus_keep_at_hand_is_of_the_zone_and_node(
    folder: Path,
    count: int,
    can: bool | None,  # noqa: FBT001
) -> None:
    free = (1 << 10).to_bytes(8, "little")
    (folder / "proc/kpageflags").write_bytes(free * 25 + bytes(8) + free * 6)
    text = ZONEINFO.replace("count:    1", f"count:    {count}")
    write(folder, {"proc/zoneinfo": text})
    add_node(folder, 0, {})
    link(folder, f"{NODES}/node0/memory3", "../../memory/memory3")
    root = sysroot(folder)
    assert [each.can for each in outlooks(root, read_blocks(root))][3] is can


def test_what_is_known_all_the_same_where_no_page_is_shown(folder: Path) -> None:
    root = sysroot(folder)
    found = list(outlooks(root, read_blocks(root)))
    assert [each.can for each in found] == [False, None, False, None]
    assert found[1].why == f"cannot read {folder}/proc/kpageflags: No such file or directory"
    assert found[2].why == "it is offline"
