# SPDX-License-Identifier: Apache-2.0
"""Groups as directories."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import FakeKernel, add_process, fake_root, refused
from zoned.errors import BadName, HasMembers, KernelRefused, TryLater
from zoned.kernel.cgroup.tree import (
    CgroupFs,
    below,
    children,
    kill_tree,
    leaves_first,
    pids_in,
    remove_tree,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path


class Stubborn(CgroupFs):
    """Answers EBUSY so often, then removes."""

    def __init__(self, times: int) -> None:
        self.times = times

    def remove(self, folder: Path) -> None:
        if self.times:
            self.times -= 1
            raise refused(folder, "rmdir", errno.EBUSY)
        super().remove(folder)


def test_listing(tmp_path: Path) -> None:
    (tmp_path / "b/x").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "memory.max").write_text("max")
    (tmp_path / "cgroup.procs").write_text("7\n0\n")
    (tmp_path / "b/x/cgroup.procs").write_text("5\n7\n")

    assert [child.name for child in children(tmp_path)] == ["a", "b"]
    assert [group.name for group in leaves_first(tmp_path / "b")] == ["x", "b"]
    assert pids_in(tmp_path) == (5, 7)
    assert children(tmp_path / "absent") == ()
    assert leaves_first(tmp_path / "absent") == ()


def test_paths_stay_below_the_mount(tmp_path: Path) -> None:
    (tmp_path / "mount/a").mkdir(parents=True)
    mount = tmp_path / "mount"

    assert below(mount, "/a") == mount / "a"
    assert below(mount, "/") == mount
    for path in ("a", "/absent", "/../mount/a", "/a/../../x", ""):
        assert below(mount, path) is None


def test_a_file_of_the_kernels_is_no_group(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max")

    with pytest.raises(BadName, match="file of the kernel's"):
        CgroupFs().make(tmp_path / "memory.max")
    with pytest.raises(KernelRefused, match="mkdir"):
        CgroupFs().make(tmp_path / "a/b")
    assert CgroupFs().make(tmp_path / "a")
    assert not CgroupFs().make(tmp_path / "a")


def test_busy_for_a_moment_is_waited_out(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)

    remove_tree(Stubborn(2), tmp_path / "a")

    assert not (tmp_path / "a").exists()
    remove_tree(Stubborn(0), tmp_path / "a")


def test_busy_for_ever_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    with pytest.raises(KernelRefused, match="busy"):
        remove_tree(Stubborn(1 << 30), tmp_path / "a", seconds=0.01)


def test_nothing_is_removed_where_a_process_is(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/c").mkdir()
    (tmp_path / "a/c/cgroup.procs").write_text("12\n")

    with pytest.raises(HasMembers, match="process 12"):
        remove_tree(CgroupFs(), tmp_path / "a")

    assert (tmp_path / "a/b").is_dir()


def test_kill_waits_until_all_are_gone(tmp_path: Path) -> None:
    root = fake_root(tmp_path)
    kernel = FakeKernel(root)
    kernel.make(root.cgroup / "a")
    add_process(root, 40)
    kernel.write(root.cgroup / "a/cgroup.procs", "40")

    kill_tree(kernel, root.cgroup / "a")

    assert pids_in(root.cgroup / "a") == ()
    assert kernel.log[-1] == ("cgroup.kill", "1")


def test_kill_gives_up_and_names_who_is_left(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("12\n13\n")
    (tmp_path / "cgroup.kill").write_text("")

    with pytest.raises(TryLater, match="12, 13"):
        kill_tree(CgroupFs(), tmp_path, seconds=0)


def test_without_cgroup_kill_processes_are_killed_one_by_one(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    procs = tmp_path / "cgroup.procs"
    procs.write_text(f"{process.pid}\n")

    class Watching(CgroupFs):
        def kill(self, pid: int, still_there: object) -> None:
            super().kill(pid, lambda found: found == pid)
            process.wait()
            procs.write_text("")

    kill_tree(Watching(), tmp_path)

    assert process.returncode == -9
    assert process.stdin is not None
    process.stdin.close()


def test_a_pid_that_is_another_process_now_is_not_killed() -> None:
    asked: list[int] = []

    def deny(pid: int) -> bool:
        asked.append(pid)
        return False

    CgroupFs().kill(os.getpid(), deny)

    assert asked == [os.getpid()]


def test_wait_until_asks_at_least_once() -> None:
    answers = iter([False, False, True])

    assert wait_until(lambda: next(answers), 10)
    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0)
