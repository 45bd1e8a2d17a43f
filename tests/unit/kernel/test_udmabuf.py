# SPDX-License-Identifier: Apache-2.0
"""dma-bufs: what the kernel is asked, and what it may answer."""

from __future__ import annotations

import errno
import fcntl
import struct
from pathlib import Path

import pytest

from tests.unit.fake_sys import write
from zoned.errors import KernelRefused, Unsupported
from zoned.kernel.root import sysroot
from zoned.kernel.udmabuf import export

MIB = 1 << 20


@pytest.fixture
def device(tmp_path: Path) -> Path:
    write(tmp_path, {"dev/udmabuf": ""})
    return tmp_path


def test_the_ioctl(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ioctl(_: int, number: int, argument: bytearray) -> int:
        # The kernel is handed a buffer of Python's own only if it can be written to.
        assert isinstance(argument, bytearray)
        asked.append((number, struct.unpack("=IIQQ", argument)))
        return 77

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    before = _open_files()
    assert export(sysroot(device), 9, 4 * MIB) == 77
    assert asked == [(0x40187542, (9, 1, 0, 4 * MIB))]
    assert _open_files() == before


def test_kernel_without(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="cannot open") as caught:
        export(sysroot(tmp_path), 9, MIB)
    assert "CONFIG_UDMABUF" in caught.value.hint


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    ("limit", "hint"),
    [("64", "at most 64 MiB: write more to"), ("200", "too old"), (None, "too old")],
)
def test_buffer_that_it_does_not_want(
    device: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, hint: str
) -> None:
    def ioctl(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    if limit is not None:
        write(device, {"sys/module/udmabuf/parameters/size_limit_mb": limit})
    with pytest.raises(KernelRefused, match="no dma-buf of 104857600 bytes") as caught:
        export(sysroot(device), 9, 100 * MIB)
    assert hint in caught.value.hint
