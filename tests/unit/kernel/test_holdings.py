# SPDX-License-Identifier: Apache-2.0
"""What processes have open and mapped."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_sys import write
from zoned.errors import MachineError
from zoned.kernel import holdings
from zoned.kernel.holdings import mapped_files, open_files, pids_meanwhile
from zoned.kernel.process import all_pids
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from pathlib import Path

# Says that it is ready when nothing but its second thread is left of it.
HEADLESS = """
import ctypes, mmap, os, threading
from pathlib import Path
if {mapped}:
    kept = mmap.mmap({file}, 4096)
    os.close({file})

def go_on():
    while Path("/proc/self/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    print("ready", flush=True)
    input()
    os._exit(0)

threading.Thread(target=go_on).start()
exit_this_thread = {{"x86_64": 60}}.get(os.uname().machine, 93)
ctypes.CDLL(None).syscall(exit_this_thread, 0)
"""


@pytest.mark.parametrize("mapped", [False, True])
def test_process_whose_first_thread_has_ended(*, mapped: bool) -> None:
    file = os.memfd_create("zoned-test")
    os.truncate(file, 4096)
    command = [sys.executable, "-c", HEADLESS.format(file=file, mapped=mapped)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[file], **pipes) as process:
        os.close(file)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        if mapped:
            names = [words[5] for _, words in mapped_files(Root(), process.pid)]
        else:
            names = [str(link.readlink()) for link in open_files(Root(), process.pid)]
        process.communicate(b"\n")
    assert any(name.startswith("/memfd:zoned-test") for name in names)


def test_mapping_that_only_another_thread_shows(tmp_path: Path) -> None:
    line = f"7f0000000000-7f0000002000 rw-s 00003000 00:06 9 {tmp_path}/dev/dax0.0\n"
    write(tmp_path, {"proc/5/maps": "", "proc/5/task/5/maps": "", "proc/5/task/6/maps": line})
    # The kernel has proc/6, too, and does not list it.
    write(tmp_path, {"proc/6/maps": line})
    assert list(mapped_files(sysroot(tmp_path), 5)) == [(tmp_path / "proc/6", line.split())]


def test_process_that_begins_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [(1, 5), (1, 6, 7)]
    monkeypatch.setattr(holdings, "all_pids", lambda _: lists.pop(0))
    assert list(pids_meanwhile(Root())) == [1, 5, 6, 7]


def test_look_that_is_forbidden(tmp_path: Path) -> None:
    write(tmp_path, {"proc/5/fd": ""})
    assert all_pids(sysroot(tmp_path)) == (5,)
    with pytest.raises(MachineError, match="cannot see what process 5 has open"):
        list(open_files(sysroot(tmp_path), 5))
