# SPDX-License-Identifier: Apache-2.0
"""What a page table tells when its process ends, changes, or may not be looked at."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from zoned.errors import NoSuchProcess
from zoned.kernel.maps import mappings
from zoned.kernel.pagemap import PageMap
from zoned.kernel.root import Root

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("root_only")]

ROOT = Root()
PAGE = mmap.PAGESIZE

_SLEEPER = "import sys; print('ready', flush=True); sys.stdin.read()"


def test_a_process_that_ends() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        (stack,) = (one for one in mappings(ROOT, child.pid) if one.name == "[stack]")
        page_map = PageMap(ROOT, child.pid)
        assert len(page_map.pages(stack.start, stack.end).pfns) > 0
    with page_map:
        assert list(page_map.present(stack.start, stack.end)) == []
        assert len(page_map.pages(stack.start, stack.end).pfns) == 0
    with pytest.raises(NoSuchProcess):
        PageMap(ROOT, child.pid)


def test_a_process_that_becomes_another() -> None:
    program = "import os; os.read(0, 1); os.execv('/bin/cat', ['cat'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin
        assert child.stdout
        with PageMap(ROOT, child.pid) as page_map:
            child.stdin.write(b"\n")
            child.stdin.write(b"hello\n")
            assert child.stdout.readline() == b"hello\n"
            (stack,) = (one for one in mappings(ROOT, child.pid) if one.name == "[stack]")
            assert len(page_map.pages(stack.start, stack.end).pfns) == 0
            with PageMap(ROOT, child.pid) as again:
                assert len(again.pages(stack.start, stack.end).pfns) > 0


def test_a_kernel_thread_has_no_memory() -> None:
    try:
        page_map = PageMap(ROOT, 2)
    except NoSuchProcess:
        return
    with page_map:
        assert list(page_map.present(0, 64 * PAGE)) == []
        assert len(page_map.pages(0, 64 * PAGE).pfns) == 0


# Gives up CAP_SYS_ADMIN (bit 21, include/uapi/linux/capability.h) and looks at itself.
_LESS = """
import ctypes, os
from zoned.errors import Unsupported
from zoned.kernel.maps import mappings
from zoned.kernel.pagemap import PageMap
from zoned.kernel.root import Root
libc = ctypes.CDLL(None, use_errno=True)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
data = (ctypes.c_uint32 * 6)()
assert libc.capget(header, data) == 0
data[0] &= ~(1 << 21)
assert libc.capset(header, data) == 0
with PageMap(Root(), os.getpid()) as page_map:
    (stack,) = (one for one in mappings(Root(), os.getpid()) if one.name == "[stack]")
    try:
        page_map.pages(stack.start, stack.end)
    except Unsupported as error:
        print(error)
"""


def test_who_may_not_see_frames_is_told_so() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _LESS],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CAP_SYS_ADMIN" in result.stdout
