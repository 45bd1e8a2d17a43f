# SPDX-License-Identifier: Apache-2.0
"""Free pages that CPUs keep at hand, from a zoneinfo as kernels write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.fake_sys import write
from zoned.kernel.root import Root, sysroot
from zoned.kernel.zone_lists import pages_at_hand

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 35
  pages free     2816
        protection: (0, 1903, 1903, 1903, 1903)
      nr_free_pages 2816
  pagesets
    cpu: 0
              count:    0
              high:     0
              batch:    1
  vm stats threshold: 2
Node 0, zone   Normal
  pagesets
    cpu: 0
              count:    120
              high:     378
              batch:    63
    cpu: 1
              count:    7
              high:     378
  node_unreclaimable:  0
Node 1, zone  Movable
  pagesets
    cpu: 0
              count:    5
"""


def test_all_cpus_are_counted_together(tmp_path: Path) -> None:
    write(tmp_path, {"proc/zoneinfo": TEXT})
    assert pages_at_hand(sysroot(tmp_path)) == {
        (0, "DMA"): 0,
        (0, "Normal"): 127,
        (1, "Movable"): 5,
    }


def test_a_kernel_that_does_not_tell(tmp_path: Path) -> None:
    assert pages_at_hand(sysroot(tmp_path)) == {}


def test_this_machine() -> None:
    text = Root().proc.joinpath("zoneinfo").read_text(encoding="ascii")
    zones = {tuple(line[5:].split(", zone")) for line in text.splitlines() if ", zone" in line}
    assert {(str(node), zone) for node, zone in pages_at_hand(Root())} <= {
        (node, zone.strip()) for node, zone in zones
    }
    assert pages_at_hand(Root())
