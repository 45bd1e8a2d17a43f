# SPDX-License-Identifier: Apache-2.0
"""Groups of cgroup v1's cpuset hierarchy kept off nodes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import add_process, fake_root, refused
from zoned.engine.fence.plan import FenceAction, fence_plan
from zoned.errors import KernelRefused, Unsupported
from zoned.idset import parse_ids
from zoned.kernel.cgroup.fence_v1 import FenceV1
from zoned.kernel.cgroup.tree import CgroupFs, children

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

ALL = frozenset({0, 1, 2, 3})


class Cpusets(CgroupFs):
    """The cpuset hierarchy: a group's nodes are a part of those of the group above it."""

    def __init__(self, mount: Path) -> None:
        self.log: list[tuple[str, str]] = []
        self.fails: dict[str, int] = {}
        self.mount = mount
        self.add(mount, "0-3")

    def add(self, folder: Path, nodes: str, *, migrate: str = "0") -> None:
        folder.mkdir(parents=True)
        for name, text in {
            "cpuset.mems": nodes,
            "cpuset.effective_mems": nodes,
            "cpuset.memory_migrate": migrate,
            "cgroup.procs": "",
        }.items():
            (folder / name).write_text(text)

    def write(self, path: Path, text: str) -> None:
        self.log.append((path.name, text))
        if path.name in self.fails:
            raise refused(path, text, self.fails[path.name])
        if not path.exists():
            raise refused(path, text, errno.ENOENT)
        if path.name == "cpuset.mems":
            self._check(path.parent, parse_ids(text))
            (path.with_name("cpuset.effective_mems")).write_text(text)
        path.write_text(text)

    def _check(self, folder: Path, nodes: frozenset[int]) -> None:
        if not nodes <= parse_ids((folder.parent / "cpuset.mems").read_text()):
            raise refused(folder, "mems", errno.EACCES)
        for child in children(folder):
            if not parse_ids((child / "cpuset.mems").read_text()) <= nodes:
                raise refused(folder, "mems", errno.EBUSY)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = fake_root(tmp_path)
    text = f"1 0 0:1 / {root.cgroup}/cpuset rw - cgroup cgroup rw,cpuset\n"
    (root.proc / "self/mountinfo").write_text(text)
    add_process(root, os.getpid())
    (root.proc / str(os.getpid()) / "cgroup").write_text("4:cpuset:/\n")
    return root


@pytest.fixture
def fs(root: Root) -> Cpusets:
    fs = Cpusets(root.cgroup / "cpuset")
    for name in ("docker", "docker/one", "empty", "zone", "zone/db"):
        fs.add(fs.mount / name, "" if name == "empty" else "0-3")
    return fs


@pytest.fixture
def fence(root: Root, fs: Cpusets) -> FenceV1:
    return FenceV1(root, fs=fs)


def test_all_groups_with_nodes_but_the_zones(fence: FenceV1, fs: Cpusets) -> None:
    found = fence.outsiders()

    assert [each.name for each in found] == ["/docker/one", "/docker"]
    assert found[0].own == found[0].written == found[0].effective == ALL
    assert fence.nodes() == ALL
    files = [fs.mount / name / "cpuset.mems" for name in ("docker/one", "docker", "empty")]
    assert fence.watched() == (fs.mount, *files)


def test_up_and_down_in_the_order_that_the_kernel_wants(fence: FenceV1, fs: Cpusets) -> None:
    recorded: dict[str, frozenset[int]] = {}

    def run(fenced: frozenset[int]) -> list[str]:
        for action in fence_plan(fenced, fence.nodes(), fence.outsiders(), recorded):
            if isinstance(action, FenceAction):
                recorded.setdefault(action.group, action.former)
                fence.confine(action.group, action.nodes)
            else:
                fence.lift(action.group, recorded.pop(action.group))
        return [(fs.mount / name / "cpuset.mems").read_text() for name in ("docker", "docker/one")]

    assert run(frozenset({3})) == ["0-2", "0-2"]
    assert run(frozenset({3})) == ["0-2", "0-2"]
    assert run(frozenset({2, 3})) == ["0-1", "0-1"]
    assert run(frozenset({3})) == ["0-2", "0-2"]
    assert run(frozenset()) == ["0-3", "0-3"]


@pytest.mark.parametrize(("migrate", "log"), [("0", ["1", "0-1", "0"]), ("1", ["0-1"])])
def test_pages_move_along_and_the_switch_is_left_as_it_was(
    fence: FenceV1, fs: Cpusets, migrate: str, log: list[str]
) -> None:
    fs.add(fs.mount / "lxc", "0-3", migrate=migrate)
    fence.confine("/lxc", frozenset({0, 1}))
    assert [text for _, text in fs.log] == log


def test_a_refusal_leaves_the_switch_as_it_was_too(fence: FenceV1, fs: Cpusets) -> None:
    fs.fails["cpuset.mems"] = errno.EBUSY
    with pytest.raises(KernelRefused, match="busy"):
        fence.confine("/docker", frozenset({0, 1}))
    assert (fs.mount / "docker/cpuset.memory_migrate").read_text() == "0"


def test_nodes_that_went_away_cannot_be_given_back(fence: FenceV1, fs: Cpusets) -> None:
    fence.lift("/docker/one", frozenset({1, 9}))
    assert (fs.mount / "docker/one/cpuset.mems").read_text() == "1"
    fence.lift("/docker/one", frozenset({9}))
    assert (fs.mount / "docker/one/cpuset.mems").read_text() == "0-3"


def test_gone_is_fine(fence: FenceV1) -> None:
    fence.confine("/gone", frozenset({0}))
    fence.lift("/gone", frozenset({0}))


def test_the_daemon_and_who_is_loose(fence: FenceV1, root: Root, fs: Cpusets) -> None:
    pid = os.getpid()
    (root.proc / str(pid) / "cgroup").write_text("4:cpuset:/docker/one\n")
    (fs.mount / "docker/one/cgroup.procs").write_text(f"{pid}")
    assert fence.outsiders() == ()

    add_process(root, 50)
    (fs.mount / "docker/cgroup.procs").write_text("50")
    (fs.mount / "cgroup.procs").write_text("50")
    assert [(each.name, each.holds_daemon) for each in fence.outsiders()] == [
        ("/docker/one", True),
        ("/docker", True),
    ]
    assert [each.pid for each in fence.loose().processes] == [50]


def test_without_the_hierarchy(root: Root) -> None:
    (root.proc / "self/mountinfo").write_text("")
    with pytest.raises(Unsupported, match="cpuset"):
        FenceV1(root).outsiders()
