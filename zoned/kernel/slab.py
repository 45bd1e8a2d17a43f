# SPDX-License-Identifier: Apache-2.0
"""Memory that the kernel has for itself and can give up.

Source: Documentation/admin-guide/sysctl/vm.rst (drop_caches).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.kernel.root import write_text

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_SLAB = "2"


def drop_slab(root: Root) -> None:
    """Have the kernel drop what it remembers of names and inodes and nobody uses. Costs time to
    read again, never data. Raises KernelRefused.
    """
    write_text(root.proc / "sys/vm/drop_caches", _SLAB)
