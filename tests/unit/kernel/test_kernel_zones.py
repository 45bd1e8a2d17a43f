# SPDX-License-Identifier: Apache-2.0
"""The kernel's zones, and what it keeps ordinary allocations from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.kernel.kernel_zones import read_kernel_zones, read_ratio
from zoned.kernel.root import Root, sysroot
from zoned.model.dma.offer import KernelZone, Span

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 1008285
  pages free     3840
        boost    0
        min      16
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 3019, 15563, 15563, 15563)
      nr_free_pages 3840
      nr_free_cma  0
  pagesets
    cpu: 0
              count:    0
              high:     0
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone    DMA32
  pages free     700000
        spanned  1044480
        present  782336
        managed  772915
        cma      16384
        protection: (0, 0, 12544, 12544)
      nr_free_cma  16
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        spanned  0
        present  0
        managed  0
        cma      0
Node 1, zone   Normal
  pages free     5
        spanned  262144
        present  262144
        managed  250000
        cma      0
  start_pfn:           1048576
Node 1, zone   Device
  pages free     0
        spanned  0
        present  0
        managed  0
"""


def test_zones(tmp_path: Path) -> None:
    write(tmp_path, {"proc/zoneinfo": ZONEINFO})
    found = read_kernel_zones(sysroot(tmp_path))
    assert found is not None
    assert [(zone.node, zone.name, zone.covered) for zone in found] == [
        (0, "DMA", True),
        (0, "DMA32", False),
        (0, "Movable", False),
        (1, "Normal", False),
    ]
    assert found[1] == KernelZone(
        node=0,
        name="DMA32",
        start=16 << 20,
        spanned=1044480 * PAGE,
        present=782336 * PAGE,
        managed=772915 * PAGE,
        free=700000 * PAGE,
        cma=64 << 20,
        free_cma=64 << 10,
        protection=(0, 0, 49 << 20, 49 << 20),
    )
    assert found[0].protection == tuple(n * PAGE for n in (0, 3019, 15563, 15563, 15563))
    assert found[2].protection == ()
    assert found[1].span == Span(16 << 20, 1044480 * PAGE)
    assert found[2].span is None


def test_no_zones(tmp_path: Path) -> None:
    assert read_kernel_zones(sysroot(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("256\t256\t32\t0\t0", (256, 256, 32, 0, 0)), ("", None), ("x", None)],
)
def test_ratio(tmp_path: Path, text: str, ratio: tuple[int, ...] | None) -> None:
    write(tmp_path, {"proc/sys/vm/lowmem_reserve_ratio": text})
    assert read_ratio(sysroot(tmp_path)) == ratio


def test_no_ratio(tmp_path: Path) -> None:
    assert read_ratio(sysroot(tmp_path)) is None


def test_this_machine() -> None:
    found = read_kernel_zones(Root())
    assert found
    assert all(zone.managed <= zone.present <= zone.spanned for zone in found)
    assert sum(zone.free for zone in found) > 0
