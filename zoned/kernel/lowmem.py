# SPDX-License-Identifier: Apache-2.0
"""Writing `vm.lowmem_reserve_ratio`. The kernel then says anew what it keeps of each zone
(`protection` in /proc/zoneinfo) before the write returns.

Source: Documentation/admin-guide/sysctl/vm.rst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import NotAsWritten
from zoned.kernel.kernel_zones import read_ratio
from zoned.kernel.root import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.kernel.root import Root


def write_ratio(root: Root, ratio: Sequence[int]) -> None:
    """Have the kernel keep low memory by these ratios, one for each zone from the lowest on.

    Raises KernelRefused, NotAsWritten.
    """
    wanted = tuple(ratio)
    write_text(root.proc / "sys/vm/lowmem_reserve_ratio", " ".join(map(str, wanted)))
    found = read_ratio(root)
    if found != wanted:
        raise NotAsWritten(f"vm.lowmem_reserve_ratio reads {found} after {wanted} was written")
