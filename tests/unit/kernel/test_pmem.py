# SPDX-License-Identifier: Apache-2.0
"""Persistent memory that no driver has yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.kernel.iomem import read_iomem
from zoned.kernel.pmem import read_idle_pmem, set_aside_at_boot
from zoned.kernel.root import sysroot
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from pathlib import Path

LEGACY = "40000000-67ffffff : Persistent Memory (legacy)\n"
USED = """\
140000000-17fffffff : Persistent Memory
  140000000-1401fffff : namespace0.0
  140200000-17fffffff : dax0.0
"""
BEFORE = "00100000-3fffffff : System RAM\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BEFORE + LEGACY + USED, (Span(0x40000000, 0x28000000),)),
        (BEFORE + USED, ()),
        (BEFORE + LEGACY + "  40000000-67ffffff : namespace0.0\n", ()),
        ("180000000-1bfffffff : Persistent Memory\n", (Span(0x180000000, 0x40000000),)),
        # What all but root see.
        ("00000000-00000000 : System RAM\n00000000-00000000 : Persistent Memory\n", ()),
    ],
)
def test_what_nobody_has(tmp_path: Path, text: str, found: tuple[Span, ...]) -> None:
    write(tmp_path, {"proc/iomem": text})
    assert read_idle_pmem(sysroot(tmp_path)) == found


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    assert read_idle_pmem(sysroot(tmp_path)) == ()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ro memmap=640M!1G quiet", (Span(0x40000000, 0x28000000),)),
        ("memmap=1G!6G memmap=0x28000000!0x40000000", (Span(0x40000000, 0x28000000),)),
        ("memmap=64M!4G,640M!1G", (Span(0x40000000, 0x28000000),)),
        ("memmap=512M!1G", ()),
        ("memmap=640M@1G", ()),
        ("quiet", ()),
    ],
)
def test_what_the_command_line_set_aside(
    tmp_path: Path, words: str, found: tuple[Span, ...]
) -> None:
    write(tmp_path, {"proc/iomem": BEFORE + LEGACY + USED, "proc/cmdline": words})
    root = sysroot(tmp_path)
    assert set_aside_at_boot(root, read_iomem(root) or ()) == found
