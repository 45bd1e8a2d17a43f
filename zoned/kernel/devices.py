# SPDX-License-Identifier: Apache-2.0
"""The machine's devices and what the kernel knows of their DMA.

Sources: Documentation/ABI/testing/sysfs-bus-pci (`dma_mask_bits`, `consistent_dma_mask_bits`,
`numa_node`), Documentation/PCI/sysfs-pci.rst, drivers/pci/pci-sysfs.c,
Documentation/ABI/testing/sysfs-bus-platform.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.attribute import attribute, link_name, number
from zoned.kernel.iommu import read_iommu
from zoned.model.dma.device import Bus, Device

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

_PCI = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


def read_devices(root: Root) -> tuple[Device, ...]:
    """Return all PCI devices by address, then all platform devices by name.

    What the kernel does not tell of a device is unknown; one that goes meanwhile is left out.
    Raises MachineError where a bus cannot be listed.
    """
    found = [
        device
        for bus in (Bus.PCI, Bus.PLATFORM)
        for path in _listed(root.sys / "bus" / bus / "devices")
        if (device := _device(root, bus, path)) is not None
    ]
    return tuple(sorted(found, key=_order))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MachineError(f"cannot list {folder}: {error.strerror}") from error


def _order(device: Device) -> tuple[str, tuple[int, ...], str]:
    match = _PCI.fullmatch(device.address)
    place = tuple(int(part, 16) for part in match.groups()) if match else ()
    return device.bus, place, device.address


def _device(root: Root, bus: Bus, path: Path) -> Device | None:
    if not path.is_dir():
        return None
    iommu, group = read_iommu(root, path)
    return Device(
        bus=bus,
        address=path.name,
        path=_place(root, path),
        vendor=number(path / "vendor"),
        device=number(path / "device"),
        subsystem_vendor=number(path / "subsystem_vendor"),
        subsystem_device=number(path / "subsystem_device"),
        class_code=number(path / "class"),
        modalias=attribute(path / "modalias"),
        driver=link_name(path / "driver"),
        node=number(path / "numa_node"),
        mask_bits=number(path / "dma_mask_bits"),
        coherent_bits=number(path / "consistent_dma_mask_bits"),
        iommu=iommu,
        iommu_group=group,
    )


def _place(root: Root, path: Path) -> str | None:
    """Return the path as udev(7) writes it in DEVPATH; None where the recording has no such."""
    try:
        return f"/{path.resolve().relative_to(root.sys.resolve())}"
    except (OSError, ValueError):
        return None
