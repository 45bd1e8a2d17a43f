# SPDX-License-Identifier: Apache-2.0
"""Facts about this boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.kernel.own import numa_balancing
from zoned.kernel.root import sysroot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "on"), [("0\n", False), ("1\n", True), ("2\n", True), ("", False)]
)
def test_numa_balancing(tmp_path: Path, text: str, on: bool) -> None:  # noqa: FBT001
    write(tmp_path, {"proc/sys/kernel/numa_balancing": text})
    assert numa_balancing(sysroot(tmp_path)) is on


def test_a_kernel_without_it(tmp_path: Path) -> None:
    write(tmp_path, {"proc/uptime": "1 1"})
    assert not numa_balancing(sysroot(tmp_path))
