# SPDX-License-Identifier: Apache-2.0
"""Memory blocks of machines made of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import MEMORY, add_block, add_node, write
from zoned.errors import MachineError
from zoned.kernel.memory_block import block_size, count_blocks, read_block, read_blocks
from zoned.kernel.root import sysroot
from zoned.model.topology import Block, BlockCount, BlockState

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 2 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path, {f"{MEMORY}/block_size_bytes": f"{SIZE:x}", f"{MEMORY}/auto_online_blocks": "x"}
    )
    return tmp_path


def test_fields(folder: Path) -> None:
    add_node(folder, 1, {})
    add_block(folder, 10, state="offline", zones="Normal Movable", nodes=(1,))
    add_block(folder, 9, state="online", zones="DMA32", nodes=(1,))
    assert read_blocks(sysroot(folder)) == (
        Block(id=9, start=9 * SIZE, size=SIZE, state=BlockState.ONLINE, zones=("DMA32",), node=1),
        Block(
            id=10,
            start=10 * SIZE,
            size=SIZE,
            state=BlockState.OFFLINE,
            zones=("Normal", "Movable"),
            node=1,
        ),
    )


def test_one_block_is_read_as_all_are(folder: Path) -> None:
    add_node(folder, 1, {})
    add_node(folder, 3, {})
    add_block(folder, 9, state="online", zones="none", nodes=(3, 1))
    add_block(folder, 10, state="offline", zones="Normal Movable")
    root = sysroot(folder)
    assert (read_block(root, 9), read_block(root, 10)) == read_blocks(root)
    assert read_block(root, 11) is None


def test_one_block_of_a_machine_without_memory_hotplug(tmp_path: Path) -> None:
    assert read_block(sysroot(tmp_path), 0) is None


def test_missing_files_are_unknown(folder: Path) -> None:
    add_block(folder, 0, state=None, zones=None)
    (block,) = read_blocks(sysroot(folder))
    assert (block.state, block.zones, block.node) == (None, (), None)


def test_a_block_that_went_while_we_looked_is_left_out(folder: Path) -> None:
    add_block(folder, 0, state="online", zones="Normal")
    (folder / MEMORY / "memory1").mkdir()
    assert [block.id for block in read_blocks(sysroot(folder))] == [0]


def test_a_state_of_a_later_kernel_is_unknown(folder: Path) -> None:
    add_block(folder, 0, state="resting", zones="none")
    (block,) = read_blocks(sysroot(folder))
    assert (block.state, block.zones) == (None, ("none",))


def test_a_shared_block_belongs_to_the_lowest_node(folder: Path) -> None:
    for number in (10, 9):
        add_node(folder, number, {})
    add_block(folder, 0, state="online", zones="none", nodes=(10, 9))
    (block,) = read_blocks(sysroot(folder))
    assert block.node == 9


def test_without_a_block_size_there_are_no_addresses(tmp_path: Path) -> None:
    add_block(tmp_path, 0, state="online", zones="Normal")
    assert block_size(sysroot(tmp_path)) is None
    assert read_blocks(sysroot(tmp_path)) == ()


def test_a_file_that_cannot_be_read_is_an_error(folder: Path) -> None:
    add_block(folder, 0, state=None, zones="Normal")
    (folder / MEMORY / "memory0/state").mkdir()
    with pytest.raises(MachineError, match="memory0/state"):
        read_blocks(sysroot(folder))


def test_counting_leaves_out_blocks_of_no_node() -> None:
    block = Block(id=0, start=0, size=SIZE, state=BlockState.ONLINE)
    other = Block(id=1, start=SIZE, size=SIZE, state=BlockState.ONLINE, node=4)
    assert count_blocks([block, other]) == {4: BlockCount(total=1, online=1, offline=0)}


def test_zones_of_a_block_that_has_no_node_yet_are_not_asked_for(folder: Path) -> None:
    add_node(folder, 1, {})
    add_block(folder, 10, state="offline", zones="Normal Movable")
    (found,) = read_blocks(sysroot(folder))
    assert (found.node, found.state, found.zones) == (None, BlockState.OFFLINE, ())
    add_block(folder, 10, state="offline", zones="Normal Movable", nodes=(1,))
    (found,) = read_blocks(sysroot(folder))
    assert (found.node, found.zones) == (1, ("Normal", "Movable"))


def test_zones_are_told_on_a_kernel_without_nodes(folder: Path) -> None:
    add_block(folder, 10, state="offline", zones="Normal Movable")
    (found,) = read_blocks(sysroot(folder))
    assert (found.node, found.zones) == (None, ("Normal", "Movable"))
