# SPDX-License-Identifier: Apache-2.0
"""Reservations that buffers can be had of, on a machine of files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.unit.fake_huge import HUGE, FakeHuge
from tests.unit.fake_sys import write
from zoned.engine.dma.pools import HugePools
from zoned.model.dma.held import Held
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.machine import Machine

PAGES = 8
MASK = (1 << 31) - 1
BASE = 0x10000000
DAX = "dax0.0"
DAX_BASE = 0x40000000
_DEVICE = "sys/bus/dax/devices/dax0.0"
_MAPPINGS = [(DAX_BASE, 8 * HUGE), (DAX_BASE + (1 << 28), 8 * HUGE)]


def huge_held(name: str = "capture", device: str = "0000:03:00.0") -> Held:
    """Return a reservation of huge pages."""
    return Held(
        name=name,
        rung=Rung.HUGETLB,
        size=PAGES * HUGE,
        mask=MASK,
        devices=(device,),
        standing=True,
        node=0,
        spans=(Span(BASE, PAGES * HUGE),),
        page=HUGE,
    )


def add_huge(machine: Machine, folder: Path) -> FakeHuge:
    """Make a reservation of huge pages; return the kernel that has them."""
    huge = FakeHuge(folder)
    huge.add(BASE + number * HUGE for number in range(PAGES))
    machine.pools = HugePools(huge.pool)
    machine.ledger.reserved(huge_held())
    return huge


def dax_held(name: str = "scsi") -> Held:
    """Return a reservation in both parts of a region, which leaves some of the first out."""
    return Held(
        name=name,
        rung=Rung.DEVDAX,
        size=12 * HUGE,
        mask=MASK,
        devices=("0000:04:00.0",),
        standing=True,
        region=DAX,
        spans=(Span(DAX_BASE + 4 * HUGE, 4 * HUGE), Span(DAX_BASE + (1 << 28), 8 * HUGE)),
    )


def add_dax(machine: Machine, folder: Path) -> Path:
    """Make a reservation of a device-dax region; return the file that stands for the region."""
    write(folder, {f"{_DEVICE}/size": str(16 * HUGE), f"{_DEVICE}/align": str(HUGE)})
    for number, (start, size) in enumerate(_MAPPINGS):
        place = f"{_DEVICE}/mapping{number}"
        write(folder, {f"{place}/start": f"{start:#x}", f"{place}/end": f"{start + size - 1:#x}"})
    region = folder / "dev" / DAX
    region.parent.mkdir()
    (folder / "proc").mkdir(exist_ok=True)
    region.touch()
    os.truncate(region, 16 * HUGE)
    machine.ledger.reserved(dax_held())
    return region


def map_region(folder: Path, pid: int, region: Path, offset: int, size: int) -> None:
    """Have a process map a part of the region."""
    found = region.stat()
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    line = (
        f"7f0000000000-{0x7F0000000000 + size:x} rw-s {offset:08x} {device} {found.st_ino} {region}"
    )
    write(folder, {f"proc/{pid}/maps": f"00400000-00401000 r-xp 00000000 00:00 0 \n{line}"})
