# SPDX-License-Identifier: Apache-2.0
"""Where one folio ends and the next begins, and what is left out."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit.fake_sys import write
from zoned.engine.migration import look
from zoned.engine.migration.look import GROUP, PAGE, Eyes, Folios, Resident, where
from zoned.errors import Unsupported
from zoned.kernel.maps import Mapping
from zoned.kernel.page_flags import (
    KPF_ANON,
    KPF_COMPOUND_HEAD,
    KPF_COMPOUND_TAIL,
    KPF_HUGE,
    KPF_LRU,
    KPF_MLOCKED,
    KPF_NOPAGE,
    KPF_ZERO_PAGE,
)
from zoned.kernel.pagemap import Pages
from zoned.kernel.process import Process
from zoned.kernel.root import sysroot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD, TAIL, SMALL = int(KPF_COMPOUND_HEAD), int(KPF_COMPOUND_TAIL), 0


def uint64(numbers: Any) -> Any:
    return np.array(list(numbers), np.uint64)


def pages_of(rows: list[tuple[int, int]]) -> Resident:
    """Return pages of (page number of the address, frame)."""
    no = np.zeros(len(rows), np.bool_)
    return Resident(
        addresses=uint64(at * PAGE for at, _ in rows),
        pfns=uint64(pfn for _, pfn in rows),
        nodes=np.zeros(len(rows), np.int32),
        shared=no,
        program=no,
    )


@pytest.mark.parametrize(
    ("rows", "firsts"),
    [
        # (page, frame, flags)
        ([], []),
        ([(0, 9, SMALL), (1, 10, SMALL), (5, 11, SMALL)], [0, 1, 2]),
        # Two huge pages side by side, the second mapped in the middle of nowhere.
        (
            [(at, 512 + at, HEAD if at % 512 == 0 else TAIL) for at in range(1024)],
            [0, 512],
        ),
        # mTHP of four pages between small ones.
        (
            [(0, 3, SMALL), (1, 4, HEAD), (2, 5, TAIL), (3, 6, TAIL), (4, 7, TAIL), (5, 8, SMALL)],
            [0, 1, 5],
        ),
        # mTHP side by side whose frames follow each other.
        ([(0, 4, HEAD), (1, 5, TAIL), (2, 6, HEAD), (3, 7, TAIL)], [0, 2]),
        # A folio cut in front: its first page here is a tail.
        ([(0, 6, TAIL), (1, 7, TAIL), (2, 8, SMALL)], [0, 2]),
        # One with a hole in its middle: what is behind it is a part of its own.
        ([(0, 4, HEAD), (1, 5, TAIL), (3, 7, TAIL)], [0, 2]),
        # A tail behind a page that is not of its folio, though the addresses follow each other.
        ([(0, 4, HEAD), (1, 9, TAIL), (2, 10, TAIL)], [0, 1]),
        # A tail whose frame follows, but not its address: moved by mremap(2).
        ([(0, 4, HEAD), (2, 5, TAIL)], [0, 1]),
        # The same folio mapped at another place, out of order.
        ([(0, 5, TAIL), (1, 4, HEAD), (2, 5, TAIL)], [0, 1]),
    ],
)
def test_first_pages(rows: list[tuple[int, int, int]], firsts: list[int]) -> None:
    pages = pages_of([(at, pfn) for at, pfn, _ in rows])
    found = look._first_pages(pages, uint64(flags for *_, flags in rows))
    assert np.flatnonzero(found).tolist() == firsts


def mapping(start: int, end: int) -> Mapping:
    return Mapping(start=start, end=end, executable=False, shared=False, file=False, name="")


def test_mappings_that_lie_near_are_looked_at_as_one() -> None:
    begin, near, far = 1 << 30, 1024 * PAGE, 1025 * PAGE
    found = [mapping(begin, begin + PAGE), mapping(begin + PAGE + near, begin + 2 * PAGE + near)]
    end = found[-1].end
    found.append(mapping(end + far, end + far + PAGE))
    assert list(look._spans(found)) == [(begin, end), (end + far, end + far + PAGE)]
    assert list(look._spans([])) == []


class Present:
    """Page maps in which all pages are there, some frames behind those before them."""

    def __init__(self, *runs: tuple[int, int]) -> None:
        self.runs = runs

    def present(self, _: int, __: int) -> Any:
        return iter(self.runs)

    def pages(self, start: int, end: int) -> Pages:
        addresses = np.arange(start, end, PAGE, dtype=np.uint64)
        return Pages(addresses=addresses, entries=addresses // np.uint64(PAGE) + 7, swapped=0)


class Flags:
    """Frames that are tails."""

    def __init__(self, *tails: int) -> None:
        self._tails = tails

    def flags(self, pfns: Any) -> Any:
        return uint64(TAIL if pfn in self._tails else SMALL for pfn in pfns.tolist())


def groups(*runs: tuple[int, int], tails: tuple[int, ...] = ()) -> list[int]:
    """Return how many pages each group has, for runs in numbers of pages."""
    eyes = Eyes.__new__(Eyes)
    eyes.flags = Flags(*(at + 7 for at in tails))  # type: ignore[assignment]
    found = Present(*((start * PAGE, end * PAGE) for start, end in runs))
    parts = list(eyes._groups(found, [mapping(0, 1 << 40)]))  # type: ignore[arg-type]
    every = np.concatenate([each.addresses for each in parts])
    assert every.tolist() == [at * PAGE for run in runs for at in range(*run)]
    return [len(each.addresses) for each in parts]


def test_small_runs_make_one_group() -> None:
    assert groups((0, 10), (20, 30), (99, 100)) == [21]
    assert groups((0, GROUP), (GROUP, GROUP + 6)) == [GROUP, 6]
    assert groups((0, GROUP - 1), (GROUP, GROUP + 6), (2 * GROUP, 2 * GROUP + 1)) == [GROUP + 5, 1]


def test_no_folio_is_cut() -> None:
    runs = [(at * GROUP, (at + 1) * GROUP) for at in range(5)]
    assert groups(*runs, tails=(GROUP, 2 * GROUP, 4 * GROUP)) == [3 * GROUP, 2 * GROUP]


def test_kinds_of_folios() -> None:
    head, part = KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL  # Of the last only one page is mapped.
    flags = [KPF_HUGE | head, head | KPF_ANON, KPF_ANON, KPF_MLOCKED | part]
    folios = Folios(
        addresses=uint64(range(4)),
        pfns=uint64(range(4)),
        sizes=np.array([2 << 20, 2 << 20, PAGE, PAGE]),
        nodes=np.array([0, 1, 0, 1], np.int32),
        flags=uint64(flags),
        shared=np.array([True, False, False, False]),
        program=np.array([True, False, True, False]),
    )
    assert folios.huge.tolist() == [True, False, False, False]
    assert folios.large.tolist() == [True, True, False, False]
    assert folios.anonymous.tolist() == [False, True, True, False]
    assert folios.locked.tolist() == [False, False, False, True]
    some = folios.only(np.array([False, True, False, True]))
    assert (len(some), some.nodes.tolist(), some.program.tolist()) == (
        2,
        [1, 1],
        [False, False],
    )


class FakeProc:
    """The files of one process and of the page frames, below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write(folder, {"sys/devices/system/memory/block_size_bytes": "8000000"})
        for number in (0, 1):
            (folder / f"sys/devices/system/node/node{number}/memory{number}").mkdir(parents=True)
        self.pages: dict[int, tuple[int, bool]] = {}
        self.flags: dict[int, int] = {}
        self.resident: list[Resident] = []

    def eyes(self, maps: str, pid: int = 7) -> list[Folios]:
        """Write the files; look."""
        proc = self.folder / "proc"
        (proc / str(pid)).mkdir(parents=True, exist_ok=True)
        (proc / f"{pid}/maps").write_text(maps)
        end = max(self.pages, default=0) + 1
        entries = np.zeros(max(end, 1), np.uint64)
        for at, (pfn, exclusive) in self.pages.items():
            entries[at] = pfn | exclusive << 56 | 1 << 63
        (proc / f"{pid}/pagemap").write_bytes(entries.tobytes())
        frames = np.full(70_000, int(KPF_NOPAGE), np.uint64)
        for pfn, flags in self.flags.items():
            frames[pfn] = flags
        (proc / "kpageflags").write_bytes(frames.tobytes())
        (proc / "kpagecount").write_bytes(np.ones(70_000, np.uint64).tobytes())
        process = Process(pid=pid, start_time=1, name="x", uid=0, ppid=1)
        with Eyes(sysroot(self.folder)) as eyes:
            self.resident = list(eyes.resident(process))
            return [eyes.folios(pages) for pages in self.resident]


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def test_the_folios_of_a_process(proc: FakeProc) -> None:
    lru = int(KPF_LRU)
    proc.pages = {16: (5, True), 17: (40_000, False), 18: (40_001, True), 32: (6, False)}
    proc.flags = {5: lru, 40_000: lru | HEAD, 40_001: lru | TAIL, 6: lru}
    (found,) = proc.eyes(
        "00010000-00013000 rw-p 0 00:00 0 \n00020000-00021000 r-xp 0 08:01 12 /bin/x\n"
    )
    assert found.addresses.tolist() == [0x10000, 0x11000, 0x20000]
    assert found.program.tolist() == [False, False, True]
    assert found.sizes.tolist() == [PAGE, 2 * PAGE, PAGE]
    assert found.nodes.tolist() == [0, 1, 0]
    assert found.shared.tolist() == [False, True, True]


def test_what_is_no_memory_is_left_out(proc: FakeProc) -> None:
    proc.pages = {16: (5, True), 17: (6, True), 18: (7, True)}
    proc.flags = {5: int(KPF_ZERO_PAGE), 7: int(KPF_LRU)}
    (found,) = proc.eyes("00010000-00013000 rw-p 0 00:00 0 \n")
    assert found.addresses.tolist() == [0x12000]


def test_of_a_process_that_ended_nothing(proc: FakeProc) -> None:
    assert proc.eyes("") == []


def test_where_no_block_tells_the_kernel_is_asked(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_: int, addresses: Any, nodes: Any, status: Any, flags: int) -> int:
        assert (addresses.tolist(), nodes, flags) == ([0x10000, 0x12000], None, 0)
        status[:] = [3, -errno.ENOENT]
        return 0

    monkeypatch.setattr(look, "move_pages_raw", answer)
    proc.pages = {16: (66_000, True), 17: (5, True), 18: (66_001, True)}
    proc.flags = {66_000: 1 << 5, 5: 1 << 5, 66_001: 1 << 5}
    (found,) = proc.eyes("00010000-00013000 rw-p 0 00:00 0 \n")
    assert found.nodes.tolist() == [3, 0, -1]


def test_without_page_flags_it_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    with pytest.raises(Unsupported):
        Eyes(sysroot(tmp_path))


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EPERM])
def test_where_tells_why_it_cannot(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, "no")

    monkeypatch.setattr(look, "move_pages_raw", refuse)
    assert where(7, uint64([1, 2])).tolist() == [-code, -code]


def test_where_of_a_page_of_our_own(own_page: Callable[[], int]) -> None:
    (node,) = where(0, uint64([own_page()])).tolist()
    assert node >= 0
