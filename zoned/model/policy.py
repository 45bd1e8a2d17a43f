# SPDX-License-Identifier: Apache-2.0
"""What the administrator's files want: zones, what zones may never claim of each node, and memory
for devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned.model.dma.wish import DmaPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.model.zone import ZoneSpec

LEAST_KEPT = 64 << 20
"""bytes: what any percentage above zero keeps back at least.

The kernel's own needs on a node (page tables, slab, watermarks) do not shrink with the node, so
a percentage of a small one would keep back too little. Who wants less writes a size.
"""


MOVABLE_RATIO = 3.0
"""the most movable memory of a node for each byte that the kernel can use for itself there

Source: Documentation/admin-guide/mm/memory-hotplug.rst, which names 3:1 to 4:1.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percent:
    """A part of a node's memory, in hundredths of a percent, so that arithmetic stays exact."""

    hundredths: int
    """0 to 9000"""

    def of(self, total: int) -> int:
        """Return this part of `total` bytes, rounded up, and at least LEAST_KEPT unless zero."""
        if self.hundredths == 0:
            return 0
        return max(LEAST_KEPT, -(-total * self.hundredths // 10_000))

    def __str__(self) -> str:
        return f"{self.hundredths / 100:.2f}".rstrip("0").rstrip(".") + "%"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemReserve:
    """What zones may never claim of each node: an int is bytes."""

    default: int | Percent = Percent(hundredths=500)
    nodes: Mapping[int, int | Percent] = field(default_factory=dict)
    """node -> what is kept back there instead of the default"""

    def of(self, node_id: int, total_bytes: int) -> int:
        """Return the bytes kept back on a node of `total_bytes`; never more than it has.

        Where the policy says nothing that is 5 % of the node, and at least 64 MiB.
        """
        keep = self.nodes.get(node_id, self.default)
        wanted = keep.of(total_bytes) if isinstance(keep, Percent) else keep
        return min(wanted, total_bytes)


class OnlineBy(StrEnum):
    """Who brings memory online that is plugged in."""

    KERNEL = "kernel"
    """the kernel or a udev rule, as the machine is set up"""
    ZONED = "zoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that the policy files in force say, taken together."""

    zones: tuple[ZoneSpec, ...] = ()
    """in the order of the files and as written there, but those near another zone after it"""
    reserve: SystemReserve = SystemReserve()
    movable_ratio: float = MOVABLE_RATIO
    """the most movable memory of a node for each byte that the kernel can use there"""
    parked: Mapping[int, int] = field(default_factory=dict)
    """node -> bytes of memory blocks to be held offline there"""
    online: OnlineBy = OnlineBy.KERNEL
    movable_only: bool = False
    """whether memory that is plugged in comes as movable memory alone, if zoned brings it online"""
    dma: DmaPolicy = field(default_factory=DmaPolicy)
    """devices that cannot reach all memory, and what is wanted for them"""
    sources: Mapping[str, str] = field(default_factory=dict)
    """zone name -> "file:line" where it is defined"""
    files: tuple[str, ...] = ()
    """the files that were read, in their order"""
