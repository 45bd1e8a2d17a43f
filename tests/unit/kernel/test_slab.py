# SPDX-License-Identifier: Apache-2.0
"""Having the kernel drop what it can read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.errors import KernelRefused
from zoned.kernel.root import sysroot
from zoned.kernel.slab import drop_slab

if TYPE_CHECKING:
    from pathlib import Path


def test_slab_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, {"proc/sys/vm/drop_caches": "0"})
    drop_slab(sysroot(tmp_path))
    assert (tmp_path / "proc/sys/vm/drop_caches").read_text().strip() == "2"


def test_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/vm/drop_caches").mkdir(parents=True)
    with pytest.raises(KernelRefused, match="drop_caches"):
        drop_slab(sysroot(tmp_path))
