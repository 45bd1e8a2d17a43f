# SPDX-License-Identifier: Apache-2.0
"""One look at what memory for a device could come from."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.unit.fake_sys import MEMORY, add_block, add_node, link, write
from tests.unit.kernel.test_kernel_zones import ZONEINFO
from zoned.kernel.dma_offer import read_offer
from zoned.kernel.root import sysroot
from zoned.model.base import DaxMode
from zoned.model.dma.offer import Offer, Span

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009ffff : System RAM
00100000-3fffffff : System RAM
  01000000-01ffffff : Kernel code
  30000000-3fffffff : Crash kernel
40000000-67ffffff : Persistent Memory (legacy)
  41000000-67ffffff : dax0.0
100000000-1ffffffff : System RAM
200000000-21fffffff : dax1.0
  200000000-21fffffff : System RAM (kmem)
"""
MIB, GIB = 1 << 20, 1 << 30
BLOCK = 128 * MIB


def test_everything(tmp_path: Path) -> None:
    dax = "sys/devices/platform/e820_pmem/dax0.0"
    write(
        tmp_path,
        {
            "proc/iomem": IOMEM,
            "proc/zoneinfo": ZONEINFO,
            "proc/sys/vm/lowmem_reserve_ratio": "256 256 32 0 0",
            "proc/sys/kernel/arch": "x86_64",
            "proc/cmdline": "cma=64M@0-2G",
            f"{MEMORY}/block_size_bytes": "8000000",
            f"{dax}/size": str(624 * MIB),
            f"{dax}/mapping0/start": "0x41000000",
            f"{dax}/mapping0/end": "0x67ffffff",
            "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0",
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0",
        },
    )
    link(tmp_path, "sys/bus/dax/devices/dax0.0", f"../../../{dax.removeprefix('sys/')}")
    link(tmp_path, f"{dax}/driver", "../../../bus/dax/drivers/device_dax")
    raw = bytearray(4096)
    struct.pack_into("<II", raw, 0x218, 0x20000000, 0x1000000)
    (tmp_path / "sys/kernel/boot_params").mkdir(parents=True)
    (tmp_path / "sys/kernel/boot_params/data").write_bytes(bytes(raw))
    add_node(tmp_path, 0, {})
    for number in (0, 1, 31, 32):
        add_block(tmp_path, number, state="online", zones="DMA32", nodes=(0,))
    found = read_offer(sysroot(tmp_path))
    assert found.ram == (Span(0x1000, 0x9F000), Span(MIB, GIB - MIB), Span(4 * GIB, 4 * GIB))
    assert found.claimed == (
        Span(16 * MIB, 16 * MIB),
        Span(0x30000000, 256 * MIB),
        Span(0x20000000, 16 * MIB),
    )
    assert (found.x86, found.ratio) == (True, (256, 256, 32, 0, 0))
    assert found.areas == (Span(2 * GIB - 64 * MIB, 64 * MIB),)
    assert [(each.name, each.mode, each.ranges) for each in found.regions] == [
        ("dax0.0", DaxMode.DEVDAX, ((0x41000000, 624 * MIB),))
    ]
    assert found.pmem == (Span(GIB, 640 * MIB),)
    assert found.zones is not None
    assert found.block_size == BLOCK
    assert [each.block.id for each in found.low_blocks] == [0, 1, 31]
    assert {each.can for each in found.low_blocks} == {None}
    assert found.huge_sizes == (2 * MIB, GIB)
    assert (found.lowest, found.end) == (0x1000, 8 * GIB)


def test_nothing(tmp_path: Path) -> None:
    found = read_offer(sysroot(tmp_path))
    assert found == Offer()
    assert (found.lowest, found.end, found.most_below(1 << 40)) == (None, None, None)


def test_recorded_machine(machine: Callable[[str], Path]) -> None:
    found = read_offer(sysroot(machine("lsmem-x86_64-16g")))
    assert found.block_size == BLOCK
    assert found.low_blocks
    assert {each.can for each in found.low_blocks} <= {None, False}
    assert found.ram is None
