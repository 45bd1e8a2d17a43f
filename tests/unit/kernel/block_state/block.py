# SPDX-License-Identifier: Apache-2.0
"""The block that the tests of its state change."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

SIZE = 128 << 20
LONG = 60.0
"""Seconds: a deadline that no test waits for"""


def block_file(root: Root, name: str) -> Path:
    return root.sys / f"devices/system/memory/memory3/{name}"
