# SPDX-License-Identifier: Apache-2.0
"""Files in memory whose pages are known, with ordinary pages: huge ones only the lab has."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from zoned.errors import KernelRefused, MachineError, Unsupported
from zoned.kernel import huge_file
from zoned.kernel.huge_file import HugeFile
from zoned.kernel.root import Root, sysroot
from zoned.kernel.syscalls import get_mempolicy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = mmap.PAGESIZE


@pytest.fixture
def file() -> Iterator[HugeFile]:
    try:
        made = HugeFile(Root(), 0, PAGE, 8, huge=False)
    except Unsupported as error:
        pytest.skip(str(error))
    yield made
    made.close()


def resident(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512 // PAGE


def test_pages_come_and_go(file: HugeFile) -> None:
    before = get_mempolicy()
    assert file.take(2)
    assert file.take(5)
    assert get_mempolicy() == before, "this thread's memory would come from that node from now on"
    fd = os.dup(file._fd)
    assert resident(fd) == 2
    file.free(2)
    file.free(3)
    assert resident(fd) == 1
    os.close(fd)


def test_a_handed_over_file_is_sealed_and_whole(file: HugeFile) -> None:
    made = HugeFile(Root(), 0, PAGE, 2, huge=False)
    made.take(0)
    made.take(1)
    made.seal()
    fd = made.detach()
    try:
        assert resident(fd) == 2
        for size in (PAGE, 3 * PAGE):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        with mmap.mmap(fd, 2 * PAGE) as memory:
            memory[PAGE] = 7
    finally:
        os.close(fd)


def test_a_file_grows(file: HugeFile) -> None:
    assert file.take(7)
    file.resize(20)
    assert file.take(19)
    assert file.places == 20


def test_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of this process
    made = HugeFile(Root(), 0, PAGE, 8, huge=False)
    made.take(0)
    made.resize(9)
    made.close()
    os.close(HugeFile(Root(), 0, PAGE, 8, huge=False).detach())
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM])
def test_the_node_has_none_left(file: HugeFile, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(huge_file, "fallocate", refuse)
    assert not file.take(0)


def test_other_refusals_are_told(file: HugeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(huge_file, "fallocate", refuse)
    with pytest.raises(KernelRefused, match="take"):
        file.take(0)
    with pytest.raises(KernelRefused, match="free"):
        file.free(0)


def test_a_signal_does_not_keep_a_page_away(
    file: HugeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [errno.EINTR, errno.EINTR]

    def interrupted(*_: int) -> None:
        if answers:
            raise OSError(answers.pop(), "signal")

    monkeypatch.setattr(huge_file, "fallocate", interrupted)
    assert file.take(0)
    assert not answers


class TestAddresses:
    """With page tables of files, since only root sees addresses."""

    @pytest.fixture
    def tables(self, tmp_path: Path) -> Path:
        path = tmp_path / "proc/self/pagemap"
        path.parent.mkdir(parents=True)
        path.touch()
        return path

    def _told(self, tables: Path, monkeypatch: pytest.MonkeyPatch, words: list[int]) -> HugeFile:
        left = list(words)
        monkeypatch.setattr(huge_file.HugeFile, "_word", lambda *_: left.pop(0))
        return HugeFile(sysroot(tables.parents[2]), 0, PAGE, 2, huge=False)

    def test_where_a_page_lies(self, tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = self._told(tables, monkeypatch, [0, 1 << 63 | 1 << 61 | 1 << 56 | 77])
        file.take(1)
        assert file.address(1) == 77 * PAGE
        file.close()

    def test_a_page_that_is_not_shown(self, tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = self._told(tables, monkeypatch, [0] * 10)
        file.take(1)
        assert file.address(1) is None
        file.close()

    def test_addresses_are_hidden(self, tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = self._told(tables, monkeypatch, [1 << 63])
        file.take(1)
        with pytest.raises(Unsupported, match="CAP_SYS_ADMIN"):
            file.address(1)
        file.close()

    def test_kernels_that_cannot_populate(
        self, tables: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = self._told(tables, monkeypatch, [1 << 63 | 5])
        monkeypatch.setattr(huge_file, "_MADV_POPULATE_READ", 9999)
        file.take(1)
        assert file.address(1) == 5 * PAGE
        file.close()

    def test_no_page_tables_shown(self, tmp_path: Path) -> None:
        with pytest.raises(Unsupported, match="pagemap"):
            HugeFile(sysroot(tmp_path), 0, PAGE, huge=False)


def test_there_are_no_pages_of_that_size() -> None:
    with pytest.raises(Unsupported, match="12 KiB"):
        HugeFile(Root(), 0, 3 * 4096)


def test_a_node_that_is_not_there() -> None:
    try:
        file = HugeFile(Root(), 1000, PAGE, 1, huge=False)
    except Unsupported as error:
        pytest.skip(str(error))
    try:
        with pytest.raises(MachineError, match="node 1000"):
            file.take(0)
    finally:
        file.close()
