# SPDX-License-Identifier: Apache-2.0
"""Whether an IOMMU translates what a device addresses.

Sources: Documentation/ABI/testing/sysfs-kernel-iommu_groups (`type`),
drivers/iommu/iommu.c (iommu_group_show_type: the type of the group's default domain).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.kernel.attribute import attribute
from zoned.model.dma.device import Iommu

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

_TYPES = {
    "DMA": Iommu.TRANSLATED,
    "DMA-FQ": Iommu.TRANSLATED,
    "identity": Iommu.PASSTHROUGH,
}
"""Others ("blocked", "unmanaged", "unknown") do not tell what a driver would get."""


def read_iommu(root: Root, device: Path) -> tuple[Iommu, int | None]:
    """Return what stands between a device of sysfs and memory, and the number of its group.

    A device without a group has no IOMMU, where the kernel knows groups at all. Kernels before
    5.11 do not tell the type of a group.
    """
    groups = root.sys / "kernel/iommu_groups"
    try:
        name = (device / "iommu_group").readlink().name
    except OSError:
        return (Iommu.NONE if groups.is_dir() else Iommu.UNKNOWN), None
    number = int(name) if name.isascii() and name.isdigit() else None
    kind = attribute(groups / name / "type")
    return _TYPES.get(kind or "", Iommu.UNKNOWN), number
