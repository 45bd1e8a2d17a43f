# SPDX-License-Identifier: Apache-2.0
"""Asking the kernel to move used memory together.

Source: Documentation/ABI/stable/sysfs-devices-node (compact).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.kernel.root import write_text

if TYPE_CHECKING:
    from zoned.kernel.root import Root


def compact(root: Root, node: int) -> bool:
    """Have the kernel move the used pages of a node together; return whether it can.

    It takes a while where much is to move. Raises KernelRefused.
    """
    path = root.sys / f"devices/system/node/node{node}/compact"
    if not path.exists():
        return False
    write_text(path, "1")
    return True
