# SPDX-License-Identifier: Apache-2.0
"""Who has a file open or mapped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_sys import write
from zoned.errors import MachineError
from zoned.kernel.open_files import links_to, open_behind, others_are_sent_some, others_have
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLDER = """
import mmap, os
if {mapped}:
    kept = mmap.mmap({file}, 4096)
    os.close({file})
print("ready", flush=True)
input()
"""


@pytest.mark.parametrize("mapped", [False, True])
def test_file_of_another_process(tmp_path: Path, *, mapped: bool) -> None:
    file = os.memfd_create("zoned-test")
    os.truncate(file, 4096)
    inode = os.fstat(file).st_ino
    root = sysroot(tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / f"proc/{os.getpid()}").symlink_to(f"/proc/{os.getpid()}")
    assert not others_have(root, "/memfd:zoned-test", None)
    command = [sys.executable, "-c", HOLDER.format(file=file, mapped=mapped)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[file], **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        (tmp_path / f"proc/{process.pid}").symlink_to(f"/proc/{process.pid}")
        assert others_have(root, "/memfd:zoned-test", None)
        assert others_have(root, "/memfd:zoned-test", inode)
        assert not others_have(root, "/memfd:zoned-test", inode + 1)
        assert not others_have(root, "/memfd:other", None)
        process.communicate(b"\n")
    assert not others_have(root, "/memfd:zoned-test", None)
    os.close(file)


@pytest.mark.parametrize("mapped", [False, True])
def test_file_of_another_process_is_borrowed(*, mapped: bool) -> None:
    file = os.memfd_create("zoned-test")
    os.truncate(file, 4096)
    inode = os.fstat(file).st_ino
    command = [sys.executable, "-c", HOLDER.format(file=file, mapped=mapped)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[file], **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        os.pwrite(file, b"it", 0)
        os.close(file)
        look = (Root(), "/memfd:zoned-test", {inode, 1})
        assert links_to(*look, [os.getpid()]) == {}
        links = links_to(*look, [os.getpid(), process.pid])
        assert list(links) == [inode]
        try:
            assert open_behind(Root(), links[inode], inode + 1) is None
            borrowed = open_behind(Root(), links[inode], inode)
        except MachineError as error:
            pytest.skip(str(error))
        finally:
            process.communicate(b"\n")
    assert borrowed is not None
    assert os.pread(borrowed, 2, 0) == b"it"
    os.close(borrowed)
    assert open_behind(Root(), links[inode], inode) is None


SENT = """
import os, socket
ours, theirs = socket.socketpair()
socket.send_fds(ours, [b"x"], [{file}])
os.close({file})
print("ready", flush=True)
input()
"""


def test_file_on_its_way_through_a_socket(tmp_path: Path) -> None:
    root = sysroot(tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / f"proc/{os.getpid()}").symlink_to(f"/proc/{os.getpid()}")
    file = os.memfd_create("zoned-test")
    command = [sys.executable, "-c", SENT.format(file=file)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[file], **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        assert not others_are_sent_some(root)
        (tmp_path / f"proc/{process.pid}").symlink_to(f"/proc/{process.pid}")
        told = any("scm_fds:" in (each).read_text() for each in fdinfo(process.pid))
        assert others_are_sent_some(root) is told
        assert not others_have(root, "/memfd:zoned-test", None)
        process.communicate(b"\n")
    assert not others_are_sent_some(root)
    os.close(file)


def fdinfo(pid: int) -> Iterator[Path]:
    return Path(f"/proc/{pid}/fdinfo").iterdir()


def test_what_is_no_file_is_not_opened() -> None:
    read, write_end = os.pipe()
    link = Root().proc / f"self/fd/{read}"
    assert open_behind(Root(), link, os.fstat(read).st_ino) is None
    os.close(read)
    os.close(write_end)


def test_look_that_is_forbidden(tmp_path: Path) -> None:
    write(tmp_path, {"proc/5/stat": ""})
    assert not others_have(sysroot(tmp_path), "/memfd:x", None)
    (tmp_path / "proc/6/maps").mkdir(parents=True)
    with pytest.raises(MachineError):
        others_have(sysroot(tmp_path), "/memfd:x", None)
