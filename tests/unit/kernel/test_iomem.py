# SPDX-License-Identifier: Apache-2.0
"""What lies where in physical memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.fake_sys import write
from zoned.kernel.iomem import RamMap, Resource, read_iomem
from zoned.kernel.root import sysroot

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
00000000-00000fff : Reserved
00001000-0009ffff : System RAM
100000000-1ffffffff : System RAM
  140000000-140ffffff : Kernel code
200000000-2ffffffff : CXL Window 0
  200000000-21fffffff : region0
    200000000-21fffffff : dax0.0
      200000000-21fffffff : System RAM (kmem)
300000000-3ffffffff : Persistent Memory (legacy)
"""


def test_ranges_know_what_they_lie_in(tmp_path: Path) -> None:
    write(tmp_path, {"proc/iomem": TEXT})
    found = read_iomem(sysroot(tmp_path))
    assert found is not None
    assert len(found) == 9
    assert found[3] == Resource(
        start=0x140000000, end=0x140FFFFFF, name="Kernel code", above=("System RAM",)
    )
    assert found[7].above == ("CXL Window 0", "region0", "dax0.0")
    assert found[8].above == ()


def test_zeros_are_not_believed(tmp_path: Path) -> None:
    assert read_iomem(sysroot(tmp_path)) is None
    write(tmp_path, {"proc/iomem": "00000000-00000000 : System RAM\n  00000000-00000000 : x"})
    assert read_iomem(sysroot(tmp_path)) is None


def test_line_of_another_form_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"proc/iomem": "nonsense\n00001000-00001fff : System RAM"})
    found = read_iomem(sysroot(tmp_path))
    assert found is not None
    assert [each.name for each in found] == ["System RAM"]


def test_memory_at_an_address(tmp_path: Path) -> None:
    write(tmp_path, {"proc/iomem": TEXT})
    ram = RamMap(read_iomem(sysroot(tmp_path)) or ())
    cases = {
        (0, 1 << 27): "System RAM",
        (0x1FFFFF000, 4096): "System RAM",
        (0x1FFFFF000, 8192): "System RAM",
        (0x210000000, 1 << 27): "System RAM (kmem)",
    }
    for (start, size), name in cases.items():
        found = ram.find(start, size)
        assert found is not None
        assert found.name == name
    # A block that begins before its memory does.
    found = ram.find(0xF8000000, 1 << 28)
    assert found is not None
    assert found.start == 0x100000000
    for start, size in ((0xA0000, 4096), (0x220000000, 4096), (0x300000000, 1 << 27)):
        assert ram.find(start, size) is None
    assert RamMap(()).find(0, 4096) is None
