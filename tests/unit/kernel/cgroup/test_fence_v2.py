# SPDX-License-Identifier: Apache-2.0
"""Directories of cgroup v2 kept off nodes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import FakeKernel, add_process
from tests.unit.kernel.cgroup.fences import ALL, EVER, LEFT, enter, fenced_root
from zoned.errors import KernelRefused, NotAsWritten, Unsupported
from zoned.kernel.cgroup.fence import FenceDriver, Outsider, usable_nodes
from zoned.kernel.cgroup.fence_v2 import FenceV2
from zoned.kernel.cgroup.v2 import CgroupV2
from zoned.model.zone import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

KTHREAD = 0x00200000


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return fenced_root(tmp_path)


@pytest.fixture
def kernel(root: Root) -> FakeKernel:
    kernel = FakeKernel(root)
    kernel.write(root.cgroup / "cgroup.subtree_control", "+cpuset +memory")
    for name in ("a", "b", "zone"):
        kernel.make(root.cgroup / name)
    return kernel


@pytest.fixture
def fence(root: Root, kernel: FakeKernel) -> FenceDriver:
    return FenceV2(root, fs=kernel)


def names(fence: FenceDriver) -> list[str]:
    return [each.name for each in fence.outsiders()]


def shown(fence: FenceDriver, name: str) -> Outsider:
    return next(each for each in fence.outsiders() if each.name == name)


def test_all_groups_but_that_of_the_zones(fence: FenceDriver) -> None:
    assert fence.outsiders() == (
        Outsider(name="/a", written=frozenset(), effective=ALL),
        Outsider(name="/b", written=frozenset(), effective=ALL),
    )
    assert fence.nodes() == EVER


def test_nodes_of_older_kernels(fence: FenceDriver, root: Root) -> None:
    (root.sys / "devices/system/node/possible").unlink()
    assert fence.nodes() == ALL
    assert usable_nodes(root) == frozenset({0, 1, 2})


def test_confined_and_freed(fence: FenceDriver, root: Root) -> None:
    fence.confine("/a", LEFT)
    assert shown(fence, "/a") == Outsider(
        name="/a", own=LEFT, written=LEFT, effective=shown(fence, "/a").effective
    )
    assert (root.cgroup / "a/cpuset.mems").read_text() == "0-2,4"

    fence.lift("/a", frozenset())
    assert (root.cgroup / "a/cpuset.mems").read_text() == ""


def test_a_group_with_processes_is_freed_for_all_nodes_ever(
    fence: FenceDriver, root: Root, kernel: FakeKernel
) -> None:
    enter(kernel, "a", 40)
    fence.confine("/a", LEFT)

    fence.lift("/a", frozenset())
    fence.lift("/a", frozenset())

    assert (root.cgroup / "a/cpuset.mems").read_text() == "0-4"
    assert (shown(fence, "/a").own, shown(fence, "/a").written) == (frozenset(), EVER)
    # Confined once more, it is confined by its own setting.
    fence.confine("/a", LEFT)
    assert shown(fence, "/a").own == LEFT
    fence.confine("/a", EVER)
    assert shown(fence, "/a").own == EVER


def test_what_it_had_before_is_given_back(fence: FenceDriver, root: Root) -> None:
    fence.confine("/a", frozenset({1, 3}))
    fence.confine("/a", frozenset({1}))
    fence.lift("/a", frozenset({1, 3}))
    assert (root.cgroup / "a/cpuset.mems").read_text() == "1,3"


def test_what_was_not_confined_after_all_is_not_touched(
    fence: FenceDriver, kernel: FakeKernel
) -> None:
    enter(kernel, "a", 40)
    kernel.log.clear()
    fence.lift("/a", frozenset())
    assert kernel.log == []


def test_gone_is_fine(fence: FenceDriver, kernel: FakeKernel) -> None:
    fence.confine("/gone", frozenset({1}))
    fence.lift("/gone", frozenset({1}))
    fence.lift("/gone", frozenset())


def test_refusals(fence: FenceDriver, kernel: FakeKernel, root: Root) -> None:
    kernel.fails["cpuset.mems"] = [errno.EINVAL]
    with pytest.raises(KernelRefused, match="Invalid argument"):
        fence.confine("/a", frozenset({1}))
    fence.confine("/a", frozenset({1}))
    kernel.fails["cpuset.mems"] = [errno.EIO]
    with pytest.raises(KernelRefused):
        fence.lift("/a", frozenset())
    (root.cgroup / "b/cpuset.mems").unlink()
    assert shown(fence, "/b").written is None
    with pytest.raises(Unsupported, match=r"no cpuset\.mems"):
        fence.confine("/b", frozenset({1}))


def test_a_value_that_is_another_one_afterwards(
    fence: FenceDriver, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_set", lambda path, _: path.write_text("0-4"))
    with pytest.raises(NotAsWritten, match="'0-4' instead of '1'"):
        fence.confine("/a", frozenset({1}))


def test_the_daemon_alone_is_no_outsider(
    fence: FenceDriver, root: Root, kernel: FakeKernel
) -> None:
    enter(kernel, "b", os.getpid())
    assert names(fence) == ["/a"]

    child = root.proc / "41"
    child.mkdir()
    between = " ".join(["0"] * 12)
    (child / "stat").write_text(f"41 (c) S {os.getpid()} 1 1 0 -1 0 {between} 777 0 0")
    (child / "cgroup").write_text("0::/b\n")
    enter(kernel, "b", 41)
    assert names(fence) == ["/a"]

    enter(kernel, "b", 42)
    assert [each.holds_daemon for each in fence.outsiders()] == [False, True]


def test_a_daemon_in_a_group_of_a_group(fence: FenceDriver, root: Root, kernel: FakeKernel) -> None:
    kernel.make(root.cgroup / "b/inner")
    enter(kernel, "b/inner", os.getpid())
    enter(kernel, "b", 42)
    assert [each.holds_daemon for each in fence.outsiders()] == [False, True]


def test_who_is_loose(fence: FenceDriver, root: Root, kernel: FakeKernel) -> None:
    add_process(root, 2, flags=KTHREAD)
    for pid in (2, 50, os.getpid(), 60):
        enter(kernel, "", pid)
    (root.proc / "60/stat").unlink()

    found = fence.loose()

    assert [each.pid for each in found.processes] == [50]
    assert found.kernel_threads == 1


def test_what_is_watched(fence: FenceDriver, root: Root) -> None:
    (root.cgroup / "b/cpuset.mems").unlink()
    assert fence.watched() == (root.cgroup, root.cgroup / "a/cpuset.mems")


def test_freed_groups_do_not_keep_the_controller_enabled(root: Root, kernel: FakeKernel) -> None:
    kernel.write(root.cgroup / "cgroup.subtree_control", "-cpuset")
    zones = CgroupV2(root, "other", fs=kernel)
    zones.create("db", Limits(max=1 << 30, mems=frozenset({1})))
    enter(kernel, "a", 40)
    fence = FenceV2(root, "other", fs=kernel)
    fence.confine("/a", LEFT)

    zones.remove("db")
    fence.lift("/a", frozenset())
    zones.retire()

    assert "cpuset" not in (root.cgroup / "cgroup.subtree_control").read_text()
