# SPDX-License-Identifier: Apache-2.0
"""Where areas for contiguous memory lie, by the command line and by the kernel's log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from zoned.kernel.cma import find_areas
from zoned.kernel.root import sysroot
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
LOG = """6,1,0,-;Command line: cma: Reserved 1 MiB at nowhere
6,206,33562,-;cma: Reserved 128 MiB at 0x0000000037e00000
6,207,33886,-;cma: Reserved 128 MiB at 0x000000002fe00000
6,208,33916,-;cma: Reserved 64 MiB at 0x0000000077a00000 on node 1
"""
LOGGED = (
    Span(0x37E00000, 128 * MIB),
    Span(0x2FE00000, 128 * MIB),
    Span(0x77A00000, 64 * MIB),
)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("cma=256M@0-4G", 4 * GIB),
        ("cma=256m@1G", GIB + 256 * MIB),
        ("cma=0x10000000@0x40000000-0x80000000", 2 * GIB),
        ("cma=1G@0-2G cma=256M@0-1G quiet", GIB),
    ],
)
def test_the_command_line_says_where_at_the_latest(tmp_path: Path, words: str, end: int) -> None:
    write(tmp_path, {"proc/cmdline": f"root=/dev/vda {words}"})
    assert find_areas(sysroot(tmp_path), 256 * MIB) == (Span(end - 256 * MIB, 256 * MIB),)


@pytest.mark.parametrize(
    "words", ["quiet", "cma=256M", "cma=256M@0-4G hugetlb_cma=1G", "cma=x@y", "cma=128M@0-4G"]
)
def test_a_command_line_that_does_not_account_for_all(tmp_path: Path, words: str) -> None:
    write(tmp_path, {"proc/cmdline": words})
    assert find_areas(sysroot(tmp_path), 256 * MIB) is None


def test_the_log_says_where(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cmdline": "cma=128M@0-1G", "dev/kmsg": LOG})
    assert find_areas(sysroot(tmp_path), 320 * MIB) == LOGGED


def test_a_log_whose_beginning_is_gone(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cmdline": "cma=128M@0-1G", "dev/kmsg": LOG})
    assert find_areas(sysroot(tmp_path), 448 * MIB) is None


def test_what_is_set_aside_for_huge_pages_is_no_help(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cmdline": "hugetlb_cma=320M", "dev/kmsg": LOG})
    assert find_areas(sysroot(tmp_path), 320 * MIB) is None


def test_no_areas(tmp_path: Path) -> None:
    assert find_areas(sysroot(tmp_path), 0) is None


@pytest.mark.parametrize("denied", [False, True])
def test_records_are_read_as_the_kernel_hands_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, denied: bool
) -> None:
    """One a read; some were overwritten meanwhile, and the end is that there would be a wait, or
    that no more may be known.
    """
    write(tmp_path, {"dev/kmsg": ""})
    end = PermissionError() if denied else BlockingIOError()
    lines = LOG.encode().splitlines(keepends=True)
    answers: list[bytes | OSError] = [BrokenPipeError(), *lines, end]

    def read(file: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "read", read)
    assert find_areas(sysroot(tmp_path), 320 * MIB) == LOGGED
