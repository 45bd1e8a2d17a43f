# SPDX-License-Identifier: Apache-2.0
"""Flags and counts of page frames, from files that are mostly holes."""

from __future__ import annotations

import errno
import os
import re
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import MachineError, Unsupported
from zoned.kernel import page_flags
from zoned.kernel.page_flags import KPF_NOPAGE, PageFlags
from zoned.kernel.root import Root, sysroot

FRAMES = 1000
HEADER = Path("/usr/include/linux/kernel-page-flags.h")


def fake(folder: Path, frames: int = FRAMES) -> Root:
    """Make lists in which frame N has the flags N + 5 and the count N + 9."""
    (folder / "proc").mkdir(exist_ok=True)
    for name, more in (("kpageflags", 5), ("kpagecount", 9)):
        words = (number + more for number in range(frames))
        (folder / "proc" / name).write_bytes(struct.pack(f"={frames}Q", *words))
    return sysroot(folder)


def array(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(numbers, np.uint64)


@given(st.lists(st.integers(0, 1200), max_size=80))
def test_every_frame_gets_its_own(pfns: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, PageFlags(fake(Path(folder))) as lists:
        flags, counts = lists.flags(array(*pfns)), lists.mapcounts(array(*pfns))
    assert flags.tolist() == [pfn + 5 if pfn < FRAMES else 1 << 20 for pfn in pfns]
    assert counts.tolist() == [pfn + 9 if pfn < FRAMES else 0 for pfn in pfns]
    assert flags.dtype == counts.dtype == np.uint64


def test_frames_far_beyond_the_end(tmp_path: Path) -> None:
    with PageFlags(fake(tmp_path)) as lists:
        assert lists.flags(array(1 << 40, 3)).tolist() == [int(KPF_NOPAGE), 8]


def calls(folder: Path, monkeypatch: pytest.MonkeyPatch, *pfns: int) -> int:
    made: list[int] = []
    real = os.preadv

    def counted(fd: int, buffers: list[memoryview], offset: int) -> int:
        made.append(offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    with PageFlags(fake(folder)) as lists:
        assert lists.flags(array(*pfns)).tolist() == [pfn + 5 for pfn in pfns]
    return len(made)


def test_a_run_is_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(tmp_path, monkeypatch, *range(20, 900)) == 1


def test_a_small_gap_is_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(tmp_path, monkeypatch, 40, 8, 24) == 1


def test_a_large_gap_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(tmp_path, monkeypatch, 40, 8, 23, 900) == 3


def test_a_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][:24]], at))
    with PageFlags(fake(tmp_path)) as lists:
        assert lists.flags(array(*range(7, 50))).tolist() == list(range(12, 55))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("name", ["kpageflags", "kpagecount"])
def test_a_kernel_without_the_lists(tmp_path: Path, name: str) -> None:
    root = fake(tmp_path)
    (tmp_path / "proc" / name).unlink()
    before = open_files()
    with pytest.raises(Unsupported, match=name):
        PageFlags(root)
    assert open_files() == before


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.EACCES, Unsupported), (errno.EMFILE, MachineError)]
)
def test_a_look_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(expected) as caught:
        PageFlags(sysroot(tmp_path))
    assert type(caught.value) is expected


def test_the_files_are_closed(tmp_path: Path) -> None:
    with PageFlags(fake(tmp_path)) as lists:
        pass
    for look in (lists.flags, lists.mapcounts):
        with pytest.raises(OSError, match="Bad file descriptor"):
            look(array(1))


def test_the_bits_are_the_headers() -> None:
    if not HEADER.exists():
        pytest.skip(f"no {HEADER} here")
    defined = dict(re.findall(r"#define (KPF_\w+)\s+(\d+)", HEADER.read_text()))
    # The kernel does not promise these two, and no header of its interface has them.
    defined |= {"KPF_RESERVED": "32", "KPF_MLOCKED": "33"}
    ours = {name: value for name, value in vars(page_flags).items() if name.startswith("KPF_")}
    assert len(ours) == 19
    for name, value in ours.items():
        assert value == 1 << int(defined[name]), name
