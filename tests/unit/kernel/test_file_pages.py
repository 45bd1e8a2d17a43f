# SPDX-License-Identifier: Apache-2.0
"""Where the pages of a file lie."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from zoned.errors import MachineError
from zoned.kernel import file_pages
from zoned.kernel.file_pages import addresses, addresses_in_use
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = mmap.PAGESIZE


@pytest.fixture
def file() -> Iterator[int]:
    found = os.memfd_create("test")
    os.write(found, b"x" * 8 * PAGE)
    yield found
    os.close(found)


def test_addresses_are_what_the_page_map_says(
    tmp_path: Path, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    words = [0] + [number | 1 << 63 | 1 << 61 for number in range(1, 7)] + [7]
    (tmp_path / "proc/self/pagemap").write_bytes(struct.pack("8Q", *words))
    monkeypatch.setattr(file_pages, "address_of", lambda _, place: place)
    found = addresses(sysroot(tmp_path), file, 2 * PAGE, 8 * PAGE)
    assert found == tuple(number * PAGE for number in (0, 2, 4, 6))


def test_of_this_machine(file: int) -> None:
    found = addresses(Root(), file, PAGE, 8 * PAGE)
    assert len(found) == 8
    if os.geteuid() == 0 and any(found):
        assert len(set(found)) == 8


def test_file_of_others_with_a_hole(file: int) -> None:
    class Full(mmap.mmap):
        """Memory of which the kernel has no more pages to give."""

        def __getitem__(self, _: object) -> Any:
            raise AssertionError("the kernel would end the process")

        def madvise(self, *_: int) -> None:
            raise OSError(errno.ENOMEM, "none")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmap, "mmap", Full)
        assert addresses_in_use(Root(), file, PAGE, 2 * PAGE) == (0, 0)
    assert addresses_in_use(Root(), file, PAGE, 8 * PAGE) == addresses(Root(), file, PAGE, 8 * PAGE)


def test_what_cannot_be_seen(tmp_path: Path, file: int) -> None:
    with pytest.raises(MachineError, match="cannot see where pages lie"):
        addresses(sysroot(tmp_path), file, PAGE, PAGE)
    read, other = os.pipe()
    with pytest.raises(MachineError, match="cannot map a file"):
        addresses(Root(), read, PAGE, PAGE)
    os.close(read)
    os.close(other)
