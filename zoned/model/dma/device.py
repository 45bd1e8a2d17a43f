# SPDX-License-Identifier: Apache-2.0
"""Devices that do DMA, as the kernel describes them. None always means "unknown"."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Bus(StrEnum):
    """What a device sits on."""

    PCI = "pci"
    PLATFORM = "platform"


class Iommu(StrEnum):
    """What stands between a device and memory."""

    TRANSLATED = "translated"
    """an IOMMU gives each address of the device a page of memory, wherever that lies"""
    PASSTHROUGH = "passthrough"
    """an IOMMU is there, and lets the device's addresses through as they are"""
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device."""

    bus: Bus
    address: str
    """its name on the bus, e.g. ``0000:3b:00.0``"""
    path: str | None = None
    """where it sits in the machine, e.g. ``/devices/pci0000:00/0000:00:1f.2``"""
    vendor: int | None = None
    device: int | None = None
    subsystem_vendor: int | None = None
    subsystem_device: int | None = None
    class_code: int | None = None
    """24 bits: class, subclass, programming interface"""
    modalias: str | None = None
    driver: str | None = None
    """the driver that has it; None where none has"""
    node: int | None = None
    mask_bits: int | None = None
    """`dma_mask_bits`: says 32 until a driver sets it, and what the last driver set ever after"""
    coherent_bits: int | None = None
    """`consistent_dma_mask_bits`, likewise"""
    iommu: Iommu = Iommu.UNKNOWN
    iommu_group: int | None = None

    @property
    def id(self) -> str | None:
        """Vendor and device as people write them, e.g. ``1028:000a``."""
        return _pair(self.vendor, self.device)

    @property
    def subsystem(self) -> str | None:
        """Vendor and device of the subsystem, likewise."""
        return _pair(self.subsystem_vendor, self.subsystem_device)

    @property
    def class_text(self) -> str | None:
        """The class as six digits, e.g. ``010400``."""
        return None if self.class_code is None else f"{self.class_code:06x}"


def addresses_of(name: str) -> frozenset[str]:
    """Return the addresses that people may mean by a name: PCI's usual domain may be left out."""
    return frozenset({name, name.lower(), f"0000:{name.lower()}"})


def _pair(vendor: int | None, device: int | None) -> str | None:
    return None if vendor is None or device is None else f"{vendor:04x}:{device:04x}"
