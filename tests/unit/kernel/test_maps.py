# SPDX-License-Identifier: Apache-2.0
"""What processes have mapped: lists made up, and this process's own."""

from __future__ import annotations

import itertools
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.errors import NoSuchProcess
from zoned.kernel.maps import Mapping, mappings
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from pathlib import Path

PAGE = mmap.PAGESIZE


def listed(folder: Path, *lines: str) -> tuple[Mapping, ...]:
    write(folder, {"proc/12/maps": "\n".join(lines)})
    return mappings(sysroot(folder), 12)


def test_a_line_is_a_mapping(tmp_path: Path) -> None:
    (found,) = listed(
        tmp_path, "7f45d53f0000-7f45d5546000 r-xp 00026000 fe:00 339380     /usr/lib/x"
    )
    assert found == Mapping(
        start=0x7F45D53F0000,
        end=0x7F45D5546000,
        executable=True,
        shared=False,
        file=True,
        name="/usr/lib/x",
    )


def test_the_kernels_own_page_is_left_out(tmp_path: Path) -> None:
    found = listed(
        tmp_path,
        "1000-2000 rw-s 00000000 00:00 0 ",
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
    )
    assert [(one.start, one.shared, one.executable, one.name) for one in found] == [
        (0x1000, True, False, "")
    ]


@pytest.mark.parametrize(
    ("inode", "name", "file"),
    [
        ("7", "/srv/data", True),
        ("7", "/srv/data (deleted)", True),
        ("7", "/dev/shm/ring", True),
        ("7", "/dev/zeroes", True),
        ("0", "/srv/data", False),
        ("0", "[heap]", False),
        ("0", "", False),
        ("7", "/dev/zero (deleted)", False),
        ("7", "/SYSV00000001 (deleted)", False),
        ("7", "/memfd:buffer (deleted)", False),
        ("7", "/anon_hugepage (deleted)", False),
        ("7", "/[aio] (deleted)", False),
        ("7", "anon_inode:[perf_event]", False),
        ("7", "socket:[123]", False),
        ("7", "[anon_shmem:name]", False),
    ],
)
def test_what_is_a_file(tmp_path: Path, inode: str, name: str, *, file: bool) -> None:
    (found,) = listed(tmp_path, f"1000-2000 rw-p 00000000 00:05 {inode}   {name}")
    assert (found.file, found.name) == (file, name)


@pytest.mark.parametrize("name", ["/a b  c", "/a\x0bb", "/a\x85b", "/a\u2028b", "/a\\012b"])
def test_any_path_is_one_mapping(tmp_path: Path, name: str) -> None:
    found = listed(
        tmp_path, f"1000-2000 rw-p 0 fe:00 7   {name}", "2000-3000 rw-p 00000000 00:00 0 "
    )
    assert [one.name for one in found] == [name, ""]


def test_nobody_has_no_mappings(tmp_path: Path) -> None:
    with pytest.raises(NoSuchProcess):
        mappings(sysroot(tmp_path), 12)


def test_who_has_ended_has_no_mappings(tmp_path: Path) -> None:
    with pytest.raises(NoSuchProcess):
        listed(tmp_path)


def test_this_process() -> None:
    found = mappings(Root(), os.getpid())
    assert all(one.start % PAGE == one.end % PAGE == 0 for one in found)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert any(one.file and one.executable and "libc" in one.name for one in found)
    assert any(one.name == "[stack]" and not one.file for one in found)
