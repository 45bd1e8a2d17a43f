# SPDX-License-Identifier: Apache-2.0
"""Device-dax regions as files: wiped in part, and seen wherever somebody has one."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.fakes import map_region
from tests.unit.fake_sys import write
from zoned.errors import KernelRefused, MachineError
from zoned.kernel import dax_file
from zoned.kernel.dax_file import alignment, mapped_parts, open_anywhere, open_region, wipe
from zoned.kernel.root import sysroot

if TYPE_CHECKING:
    from pathlib import Path

NAME = "dax1.0"
PAGE = mmap.PAGESIZE


@pytest.fixture
def region(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "dev").mkdir()
    path = tmp_path / "dev" / NAME
    path.write_bytes(b"x" * 8 * PAGE)
    return path


def test_alignment(tmp_path: Path) -> None:
    assert alignment(sysroot(tmp_path), NAME) == 2 << 20
    write(tmp_path, {f"sys/bus/dax/devices/{NAME}/align": "4096"})
    assert alignment(sysroot(tmp_path), NAME) == 4096


def test_only_that_part_is_wiped(
    tmp_path: Path, region: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dax_file, "_CHUNK", 2 * PAGE)
    monkeypatch.setattr(dax_file, "_ZEROES", bytes(PAGE - 5))
    file = open_region(sysroot(tmp_path), NAME)
    wipe(file, PAGE, 5 * PAGE)
    os.close(file)
    assert region.read_bytes() == b"x" * PAGE + bytes(5 * PAGE) + b"x" * 2 * PAGE


def test_what_cannot_be_opened_or_mapped(tmp_path: Path) -> None:
    with pytest.raises(KernelRefused, match=rf"cannot open {tmp_path}/dev/dax1\.0: No such file"):
        open_region(sysroot(tmp_path), NAME)
    read, other = os.pipe()
    with pytest.raises(KernelRefused, match="cannot map a device-dax region"):
        wipe(other, 0, PAGE)
    os.close(read)
    os.close(other)


def test_mappings_of_all_processes(tmp_path: Path, region: Path) -> None:
    root = sysroot(tmp_path)
    assert mapped_parts(root, NAME) == ()
    map_region(tmp_path, 5, region, 2 * PAGE, PAGE)
    map_region(tmp_path, 6, region, 0, 3 * PAGE)
    write(tmp_path, {"proc/7/maps": "", "proc/8/stat": ""})
    assert mapped_parts(root, NAME) == ((2 * PAGE, PAGE), (0, 3 * PAGE))
    # In a container the same file has another path.
    text = (tmp_path / "proc/5/maps").read_text()
    write(tmp_path, {"proc/5/maps": text.replace(str(region), "/elsewhere")})
    assert len(mapped_parts(root, NAME)) == 2
    assert mapped_parts(root, "dax2.0") == ()


def test_real_mapping_is_seen(tmp_path: Path, region: Path) -> None:
    (tmp_path / "proc" / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    root = sysroot(tmp_path)
    assert mapped_parts(root, NAME) == ()
    with region.open("r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE, offset=PAGE):
        assert mapped_parts(root, NAME) == ((PAGE, 2 * PAGE),)
        assert open_anywhere(root, NAME)


def test_open_by_what_the_kernel_counts(tmp_path: Path, region: Path) -> None:
    root = sysroot(tmp_path)
    assert not open_anywhere(root, NAME)
    (tmp_path / "proc/5/fd").mkdir(parents=True)
    (tmp_path / "proc/5/fd/3").symlink_to("/etc/passwd")
    assert not open_anywhere(root, NAME)
    (tmp_path / "proc/5/fd/4").symlink_to(region)
    assert open_anywhere(root, NAME)
    write(tmp_path, {"sys/module/device_dax/refcnt": "0"})
    assert not open_anywhere(root, NAME)
    write(tmp_path, {"sys/module/device_dax/refcnt": "2"})
    (tmp_path / "proc/5/fd/4").unlink()
    assert open_anywhere(root, NAME)


def test_look_that_is_forbidden(tmp_path: Path, region: Path) -> None:
    (tmp_path / "proc/5/maps").mkdir(parents=True)
    with pytest.raises(MachineError, match="cannot read"):
        mapped_parts(sysroot(tmp_path), region.name)
