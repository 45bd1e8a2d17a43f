# SPDX-License-Identifier: Apache-2.0
"""Devices of files, as sysfs shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.fake_sys import link, write

if TYPE_CHECKING:
    from pathlib import Path

EDU = {"vendor": "0x1234", "device": "0x11e8", "class": "0x00ff00"}


def add_device(
    folder: Path,
    address: str,
    files: dict[str, str],
    *,
    driver: str | None = None,
    group: tuple[int, str | None] | None = None,
    bus: str = "pci",
    above: str = "pci0000:00",
) -> None:
    """Make a device below `above`. `group` is the number and the type of its IOMMU group."""
    place = f"devices/{above}/{address}"
    (folder / "sys" / place).mkdir(parents=True)
    write(folder, {f"sys/{place}/{name}": text for name, text in files.items()})
    link(folder, f"sys/bus/{bus}/devices/{address}", f"../../../{place}")
    if driver is not None:
        link(folder, f"sys/{place}/driver", f"../../../bus/{bus}/drivers/{driver}")
    if group is not None:
        number, kind = group
        (folder / f"sys/kernel/iommu_groups/{number}").mkdir(parents=True, exist_ok=True)
        link(folder, f"sys/{place}/iommu_group", f"../../../kernel/iommu_groups/{number}")
        if kind is not None:
            write(folder, {f"sys/kernel/iommu_groups/{number}/type": kind})
