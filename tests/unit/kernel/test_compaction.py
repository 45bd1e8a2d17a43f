# SPDX-License-Identifier: Apache-2.0
"""Files that are written to have the kernel tidy up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import NODES, add_node
from zoned.errors import KernelRefused
from zoned.kernel.compaction import compact
from zoned.kernel.root import sysroot

if TYPE_CHECKING:
    from pathlib import Path


def test_a_node_is_compacted(tmp_path: Path) -> None:
    add_node(tmp_path, 2, {"compact": ""})
    assert compact(sysroot(tmp_path), 2)
    assert (tmp_path / NODES / "node2/compact").read_text().strip() == "1"


def test_a_kernel_that_cannot(tmp_path: Path) -> None:
    assert not compact(sysroot(tmp_path), 0)
    assert not (tmp_path / NODES).exists()


def test_a_refusal(tmp_path: Path) -> None:
    (tmp_path / NODES / "node0/compact").mkdir(parents=True)
    with pytest.raises(KernelRefused, match="node0/compact"):
        compact(sysroot(tmp_path), 0)
