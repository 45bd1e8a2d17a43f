# SPDX-License-Identifier: Apache-2.0
"""The size of memory blocks, or why there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import Unsupported
from zoned.kernel.memory_block import block_size

if TYPE_CHECKING:
    from zoned.kernel.root import Root


def require_block_size(root: Root) -> int:
    """Return the size of memory blocks in bytes. Raises Unsupported where there are none."""
    size = block_size(root)
    if size is None:
        raise Unsupported(
            "this machine has no memory blocks that could go offline (no memory hotplug)",
            hint="backing reserve works without",
        )
    return size
