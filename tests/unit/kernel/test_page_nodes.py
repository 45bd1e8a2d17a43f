# SPDX-License-Identifier: Apache-2.0
"""Nodes of page frames, on machines made of files."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.fake_sys import MEMORY, add_block, add_node, write
from zoned.errors import MachineError
from zoned.kernel.page_nodes import PageNodes
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 128 << 20
FRAMES = BLOCK // mmap.PAGESIZE


def fake(folder: Path, blocks: dict[int, tuple[int, ...]]) -> Root:
    """Make a machine of these blocks and the nodes of each."""
    write(folder, {f"{MEMORY}/block_size_bytes": f"{BLOCK:x}"})
    for node in {node for nodes in blocks.values() for node in nodes}:
        add_node(folder, node, {})
    for number, nodes in blocks.items():
        add_block(folder, number, state="online", zones="Normal", nodes=nodes)
    return sysroot(folder)


def nodes(root: Root, *pfns: int) -> list[int]:
    found = PageNodes(root).nodes(np.array(pfns, np.uint64))
    assert found.dtype == np.int32
    return [int(node) for node in found]


def test_the_node_of_a_blocks_first_and_last_frame(tmp_path: Path) -> None:
    root = fake(tmp_path, {0: (0,), 1: (0,), 2: (3,), 3: (1,)})
    edges = [FRAMES * block + frame for block in range(4) for frame in (0, FRAMES - 1)]
    assert nodes(root, *edges) == [0, 0, 0, 0, 3, 3, 1, 1]


def test_order_and_repetition_are_kept(tmp_path: Path) -> None:
    root = fake(tmp_path, {0: (0,), 1: (1,)})
    assert nodes(root, FRAMES, 5, FRAMES, 5, 0) == [1, 0, 1, 0, 0]


def test_a_frame_in_no_block(tmp_path: Path) -> None:
    root = fake(tmp_path, {1: (0,), 5: (2,)})
    assert nodes(root, 0, FRAMES - 1, 2 * FRAMES, 5 * FRAMES - 1, 6 * FRAMES) == [-1] * 5
    assert nodes(root, FRAMES, 5 * FRAMES) == [0, 2]


def test_far_away_frames(tmp_path: Path) -> None:
    root = fake(tmp_path, {0: (0,), 1 << 24: (7,)})
    assert nodes(root, FRAMES << 24, (1 << 64) - 1) == [7, -1]


def test_a_block_that_nodes_share(tmp_path: Path) -> None:
    root = fake(tmp_path, {0: (0,), 1: (0, 1), 2: (1,), 3: (0, 1, 2)})
    assert nodes(root, *(block * FRAMES for block in range(4))) == [0, -1, 1, -1]


def test_a_block_without_a_node(tmp_path: Path) -> None:
    assert nodes(fake(tmp_path, {0: (0,), 1: ()}), FRAMES) == [-1]


def test_a_kernel_without_blocks(tmp_path: Path) -> None:
    assert nodes(sysroot(tmp_path), 0, 5, FRAMES) == [-1, -1, -1]


def test_blocks_of_unknown_size(tmp_path: Path) -> None:
    root = fake(tmp_path, {0: (0,)})
    (tmp_path / MEMORY / "block_size_bytes").unlink()
    assert nodes(root, 0) == [-1]
    write(tmp_path, {f"{MEMORY}/block_size_bytes": "large"})
    with pytest.raises(MachineError, match="large"):
        PageNodes(root)


def test_neighbours_are_one_entry(tmp_path: Path) -> None:
    table = PageNodes(fake(tmp_path, {block: (block // 50,) for block in range(100)}))
    assert table._starts.tolist() == [0, 50 * FRAMES, 100 * FRAMES]


def test_no_frames(tmp_path: Path) -> None:
    assert nodes(fake(tmp_path, {0: (0,)})) == []
