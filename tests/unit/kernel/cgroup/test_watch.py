# SPDX-License-Identifier: Apache-2.0
"""Hearing of new groups and of changed files, with the kernel's real inotify on plain folders."""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

import pytest

from zoned.errors import Unsupported
from zoned.kernel import syscalls
from zoned.kernel.cgroup import watch as watch_module
from zoned.kernel.cgroup.watch import GroupWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def watch() -> Iterator[GroupWatch]:
    watch = GroupWatch()
    yield watch
    watch.close()


def readable(watch: GroupWatch) -> bool:
    return bool(select.select([watch.fileno()], [], [], 0)[0])


def test_new_groups_and_written_files(watch: GroupWatch, tmp_path: Path) -> None:
    file = tmp_path / "cpuset.mems"
    file.write_text("0")
    watch.follow([tmp_path, file])
    assert not readable(watch)
    assert not watch.drain()

    (tmp_path / "machine.slice").mkdir()
    assert readable(watch)
    assert watch.drain()
    assert not readable(watch)

    file.write_text("0-3")
    assert watch.drain()
    file.read_text()
    (tmp_path / "machine.slice").rmdir()
    assert not watch.drain()


def test_again_and_gone_are_fine(
    watch: GroupWatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        watch.follow([tmp_path, tmp_path / "gone" / "cpuset.mems"])
    (tmp_path / "new").mkdir()
    assert len(os.read(watch.fileno(), 4096)) == 16 + 16  # one event, with its name
    assert not caplog.messages


def test_too_many_watches_are_told_once(
    watch: GroupWatch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(watch_module, "inotify_add", refuse)
    for _ in range(2):
        watch.follow([tmp_path, tmp_path])
    assert len(caplog.messages) == 1


def test_no_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(watch_module, "inotify_open", refuse)
    with pytest.raises(Unsupported, match="Too many open files"):
        GroupWatch()


def test_a_failure_names_the_call(watch: GroupWatch) -> None:
    with pytest.raises(OSError, match=r"inotify_add_watch: No such file") as caught:
        syscalls.inotify_add(watch.fileno(), b"/no/such/file", syscalls.IN_MODIFY)
    assert caught.value.errno == errno.ENOENT
