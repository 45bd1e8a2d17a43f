# SPDX-License-Identifier: Apache-2.0
"""Page tables made of files, and a kernel that scans them made of a function."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest

from zoned.errors import MachineError, NoSuchProcess, Unsupported
from zoned.kernel.pagemap import MOST_SCANNED, WINDOW, PageMap, Pages
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = mmap.PAGESIZE
PRESENT, SWAPPED, FILE, EXCLUSIVE = 1 << 63, 1 << 62, 1 << 61, 1 << 56
SOFT_DIRTY = 1 << 55


def fake(folder: Path, entries: dict[int, int], pages: int = 4 * WINDOW) -> Root:
    """Make the page table of process 12 of these entries by page."""
    path = folder / "proc/12/pagemap"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(pages * 8)
        for page, entry in entries.items():
            file.seek(page * 8)
            file.write(struct.pack("=Q", entry))
    return sysroot(folder)


def read(folder: Path, entries: dict[int, int], start: int, end: int, size: int = 100) -> Pages:
    with PageMap(fake(folder, entries, size), 12) as page_map:
        return page_map.pages(start * PAGE, end * PAGE)


def test_pages_that_are_there(tmp_path: Path) -> None:
    entries = {
        4: PRESENT | 7,
        5: PRESENT | EXCLUSIVE | SOFT_DIRTY | 400,
        6: SWAPPED | 1234 << 5,
        7: SWAPPED | FILE | 1 << 5,
        8: PRESENT | FILE | (1 << 55) - 1,
        9: PRESENT | 9,
    }
    found = read(tmp_path, entries, 5, 9)
    assert found.addresses.tolist() == [5 * PAGE, 8 * PAGE]
    assert found.pfns.tolist() == [400, (1 << 55) - 1]
    assert found.exclusive.tolist() == [True, False]
    assert found.file.tolist() == [False, True]
    assert found.swapped == 2 * PAGE


def test_types_of_the_arrays(tmp_path: Path) -> None:
    for found in (read(tmp_path, {5: PRESENT | 1}, 0, 9), read(tmp_path, {}, 0, 9)):
        arrays = (found.addresses, found.pfns, found.exclusive, found.file)
        assert [str(array.dtype) for array in arrays] == ["uint64", "uint64", "bool", "bool"]


def test_more_pages_than_a_window(tmp_path: Path) -> None:
    pages = [0, WINDOW - 1, WINDOW, 2 * WINDOW + 5]
    found = read(tmp_path, {page: PRESENT | page + 1 for page in pages}, 0, 3 * WINDOW, 4 * WINDOW)
    assert found.addresses.tolist() == [page * PAGE for page in pages]


def test_who_ended_has_no_pages(tmp_path: Path) -> None:
    found = read(tmp_path, {5: PRESENT | 1}, 200, 300, size=100)
    assert len(found.pfns) == len(found.addresses) == found.swapped == 0


def test_addresses_that_end_in_between(tmp_path: Path) -> None:
    assert read(tmp_path, {99: PRESENT | 3}, 90, 300, size=100).pfns.tolist() == [3]


def test_a_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][:24]], at))
    found = read(tmp_path, {page: PRESENT | page for page in range(1, 99)}, 1, 99)
    assert found.pfns.tolist() == list(range(1, 99))


def test_hidden_frames(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"process 12.*CAP_SYS_ADMIN"):
        read(tmp_path, {5: PRESENT, 6: PRESENT | FILE}, 0, 9)


def test_frame_0_is_one(tmp_path: Path) -> None:
    with PageMap(fake(tmp_path, {5: PRESENT | 77, 6: PRESENT}), 12) as page_map:
        assert page_map.pages(0, 9 * PAGE).pfns.tolist() == [77, 0]
        assert page_map.pages(6 * PAGE, 7 * PAGE).pfns.tolist() == [0]


@pytest.mark.parametrize(("start", "end"), [(1, PAGE), (0, PAGE + 8)])
def test_parts_of_pages(tmp_path: Path, start: int, end: int) -> None:
    with PageMap(fake(tmp_path, {}), 12) as page_map:
        with pytest.raises(ValueError, match="not whole pages"):
            page_map.pages(start, end)
        with pytest.raises(ValueError, match="not whole pages"):
            list(page_map.present(start, end))


def test_nothing_between_two_addresses(tmp_path: Path) -> None:
    with PageMap(fake(tmp_path, {5: PRESENT | 1}), 12) as page_map:
        assert list(page_map.present(5 * PAGE, 5 * PAGE)) == []
        assert len(page_map.pages(6 * PAGE, 5 * PAGE).pfns) == 0


def test_nobody(tmp_path: Path) -> None:
    with pytest.raises(NoSuchProcess, match="12"):
        PageMap(sysroot(tmp_path), 12)


def test_a_kernel_without_page_tables(tmp_path: Path) -> None:
    (tmp_path / "proc/12").mkdir(parents=True)
    with pytest.raises(Unsupported):
        PageMap(sysroot(tmp_path), 12)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EACCES, MachineError),
        (errno.EPERM, MachineError),
        (errno.EMFILE, MachineError),
        (errno.ESRCH, NoSuchProcess),
    ],
)
def test_a_look_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    root = fake(tmp_path, {})
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(expected) as caught:
        PageMap(root, 12)
    assert type(caught.value) is expected


def test_the_file_is_closed(tmp_path: Path) -> None:
    with PageMap(fake(tmp_path, {}), 12) as page_map:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        page_map.pages(0, PAGE)


def pages_of(ranges: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(start // PAGE, end // PAGE) for start, end in ranges]


def test_a_kernel_that_cannot_scan(tmp_path: Path) -> None:
    with PageMap(fake(tmp_path, {3: PRESENT | 1}), 12) as page_map:
        found = pages_of(page_map.present(2 * PAGE, (2 * WINDOW + 9) * PAGE))
    assert found == [
        (2, WINDOW),
        (WINDOW, 2 * WINDOW),
        (2 * WINDOW, 2 * WINDOW + 9),
    ]


class Scanner:
    """Answers PAGEMAP_SCAN: at most `most` of its regions in a call."""

    def __init__(self, regions: list[tuple[int, int]], most: int = 4096) -> None:
        self.regions = regions
        self.most = most
        self.calls: list[tuple[int, ...]] = []
        self.error = 0
        self.stuck = self.lags = False

    def __call__(self, _fd: int, number: int, argument: bytearray, mutate: bool) -> int:  # noqa: FBT001
        assert mutate
        assert number == 0xC0606610
        asked = struct.unpack("=12Q", argument)
        self.calls.append(asked)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        size, flags, start, end, _, place, room, pages, inverted, all_of, any_of, told = asked
        assert (size, flags, inverted, all_of, any_of, told) == (96, 0, 0, 8, 0, 8)
        assert pages == MOST_SCANNED
        found = [
            (max(a * PAGE, start), min(b * PAGE, end), 8)
            for a, b in self.regions
            if b * PAGE > start and a * PAGE < end
        ]
        told_now = found[: min(self.most, room)]
        packed = b"".join(struct.pack("=3Q", *region) for region in told_now)
        ctypes.memmove(place, packed, len(packed))
        walked = end if len(told_now) == len(found) else told_now[-1][1]
        if self.lags and told_now:
            walked = told_now[len(told_now) // 2][0]
        struct.pack_into("=Q", argument, 32, start if self.stuck else walked)
        return len(told_now)


def scan(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scanner: Scanner, end: int = 4 * WINDOW
) -> list[tuple[int, int]]:
    monkeypatch.setattr(fcntl, "ioctl", scanner)
    with PageMap(fake(folder, {}), 12) as page_map:
        return pages_of(page_map.present(0, end * PAGE))


def test_only_what_is_resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = Scanner([(5, 9), (30000, 30001)])
    assert scan(tmp_path, monkeypatch, scanner) == [(5, 9), (30000, 30001)]
    assert len(scanner.calls) == 1


def test_what_is_near_comes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = Scanner([(5, 9), (10, 11), (1035, 1036), (2061, 2062)])
    assert scan(tmp_path, monkeypatch, scanner) == [(5, 1036), (2061, 2062)]


def test_no_range_is_larger_than_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan(tmp_path, monkeypatch, Scanner([(5, 2 * WINDOW)]))
    assert found == [(5, WINDOW), (WINDOW, 2 * WINDOW)]


def test_a_scan_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = [(5000 * number, 5000 * number + 1) for number in range(20)]
    scanner = Scanner(regions, most=3)
    assert scan(tmp_path, monkeypatch, scanner, end=90_000) == regions[:18]
    assert len(scanner.calls) == 6


def test_no_page_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux 6.18 does this: told of five regions, it says it has walked to the third."""
    regions = [(5000 * number, 5000 * number + 1) for number in range(20)]
    scanner = Scanner(regions, most=5)
    scanner.lags = True
    assert scan(tmp_path, monkeypatch, scanner, end=100_000) == regions
    assert len(scanner.calls) == 5


def test_nothing_is_resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scan(tmp_path, monkeypatch, Scanner([])) == []


def test_a_scan_without_progress_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = Scanner([])
    scanner.stuck = True
    assert scan(tmp_path, monkeypatch, scanner, end=20) == [(0, 20)]
    assert len(scanner.calls) == 1


@pytest.mark.parametrize("code", [errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.ENOSYS])
def test_a_kernel_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    scanner = Scanner([])
    scanner.error = code
    monkeypatch.setattr(fcntl, "ioctl", scanner)
    with PageMap(fake(tmp_path, {}), 12) as page_map:
        assert pages_of(page_map.present(0, 9 * PAGE)) == [(0, 9)]
        assert pages_of(page_map.present(9 * PAGE, 12 * PAGE)) == [(9, 12)]
    assert len(scanner.calls) == 1


def test_a_scan_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = Scanner([])
    scanner.error = errno.EFAULT
    with pytest.raises(MachineError, match="process 12: Bad address"):
        scan(tmp_path, monkeypatch, scanner)


def test_where_no_memory_is_no_kernel_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = Scanner([(5, 9)])
    monkeypatch.setattr(fcntl, "ioctl", scanner)
    with PageMap(fake(tmp_path, {}, pages=0), 12) as page_map:
        assert list(page_map.present(0, 20 * PAGE)) == []
    assert scanner.calls == []
