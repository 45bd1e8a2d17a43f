# SPDX-License-Identifier: Apache-2.0
"""Asking the kernel to tidy up its memory.

Sources: Documentation/ABI/stable/sysfs-devices-node (compact),
Documentation/admin-guide/sysctl/vm.rst (drop_caches).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.kernel.root import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root


def compact(root: Root, node: int) -> bool:
    """Have the kernel move the used pages of a node together; return whether it can.

    It takes a while where much is to move. Raises KernelRefused.
    """
    return _write(root.sys / f"devices/system/node/node{node}/compact", "1")


def drop_slab(root: Root) -> bool:
    """Have the kernel forget what file systems remember of names and inodes; return whether it can.

    Offlining does not do so by itself, and slab pages keep a block. Raises KernelRefused.
    """
    return _write(root.proc / "sys/vm/drop_caches", "2")


def _write(path: Path, text: str) -> bool:
    if not path.exists():
        return False
    write_text(path, text)
    return True
