# SPDX-License-Identifier: Apache-2.0
"""What the boot loader said of memory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.kernel.boot import is_x86, read_initrd
from zoned.kernel.root import sysroot
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def zero_page(folder: Path, image: int, size: int, length: int = 4096) -> None:
    """Write the parameters that a boot loader hands over."""
    raw = bytearray(4096)
    struct.pack_into("<II", raw, 0xC0, image >> 32, size >> 32)
    struct.pack_into("<II", raw, 0x218, image & 0xFFFFFFFF, size & 0xFFFFFFFF)
    path = folder / "sys/kernel/boot_params/data"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(raw[:length]))


@pytest.mark.parametrize("image", [0x7A000000, 0x1_7A000000])
def test_initrd(tmp_path: Path, image: int) -> None:
    zero_page(tmp_path, image, 0x2345678)
    assert read_initrd(sysroot(tmp_path)) == Span(image, 0x2345678)
    assert is_x86(sysroot(tmp_path)) is True


def test_no_initrd(tmp_path: Path) -> None:
    assert read_initrd(sysroot(tmp_path)) is None
    assert is_x86(sysroot(tmp_path)) is None
    zero_page(tmp_path, 0, 0)
    assert read_initrd(sysroot(tmp_path)) is None


def test_parameters_cut_short(tmp_path: Path) -> None:
    zero_page(tmp_path, 4096, 4096, length=0x21A)
    assert read_initrd(sysroot(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "x86"), [("x86_64", True), ("i686", True), ("aarch64", False), ("ppc64le", False)]
)
def test_architecture(tmp_path: Path, name: str, *, x86: bool) -> None:
    write(tmp_path, {"proc/sys/kernel/arch": name})
    assert is_x86(sysroot(tmp_path)) is x86
