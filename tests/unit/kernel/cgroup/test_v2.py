# SPDX-License-Identifier: Apache-2.0
"""The driver for cgroup v2 without a service manager."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import MIB, FakeKernel, add_process, fake_root
from zoned.errors import (
    BadName,
    BelowUse,
    KernelRefused,
    NotAsWritten,
    Unsupported,
)
from zoned.kernel.cgroup.v2 import CgroupV2
from zoned.model.zone import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

LIMITS = Limits(
    max=256 * MIB + 5, min=128 * MIB, swap=0, mems=frozenset({2}), cpus=frozenset({0, 1})
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return fake_root(tmp_path)


@pytest.fixture
def kernel(root: Root) -> FakeKernel:
    return FakeKernel(root)


@pytest.fixture
def driver(root: Root, kernel: FakeKernel) -> CgroupV2:
    return CgroupV2(root, fs=kernel)


def folder(root: Root, zone: str = "db") -> Path:
    return root.cgroup / "zone" / zone


def limits_of(driver: CgroupV2, zone: str = "db") -> Limits:
    group = driver.group(zone)
    assert group is not None
    return group.limits


def test_create_writes_limits_before_sets_and_reads_back(
    driver: CgroupV2, kernel: FakeKernel, root: Root
) -> None:
    driver.create("db", LIMITS)

    assert kernel.log == [
        ("cgroup.subtree_control", "+cpuset +memory"),
        ("cgroup.subtree_control", "+cpuset +memory"),
        ("memory.min", str(128 * MIB)),
        ("memory.max", str(256 * MIB)),
        ("memory.swap.max", "0"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "2"),
    ]
    assert limits_of(driver) == driver.expected(LIMITS)
    assert limits_of(driver).max == 256 * MIB
    assert (folder(root) / "members").is_dir()
    assert [group.path for group in driver.groups()] == ["/zone/db"]


def test_a_failed_create_leaves_nothing(driver: CgroupV2, kernel: FakeKernel, root: Root) -> None:
    kernel.fails["cpuset.mems"] = [errno.EINVAL]

    with pytest.raises(KernelRefused, match=r"cpuset\.mems: Invalid argument"):
        driver.create("db", LIMITS)

    assert not folder(root).exists()
    assert driver.groups() == ()


def test_nodes_that_do_not_take_effect_are_an_error(driver: CgroupV2, root: Root) -> None:
    with pytest.raises(NotAsWritten, match=r"cpuset\.mems\.effective is 0-3 instead of 7"):
        driver.create("db", Limits(max=MIB, mems=frozenset({7})))

    assert not folder(root).exists()


def test_a_value_that_reads_back_otherwise_is_an_error(
    driver: CgroupV2, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned.kernel.cgroup.unified._SETTLE_SECONDS", 0.01)
    driver.create("db", LIMITS)
    real = kernel.write
    monkeypatch.setattr(
        kernel,
        "write",
        lambda path, text: real(path, "8192" if text == str(512 * MIB) else text),
    )

    with pytest.raises(NotAsWritten, match="max is 8192"):
        driver.change("db", Limits(max=512 * MIB, min=0))
    assert limits_of(driver) == driver.expected(LIMITS)


def test_a_group_that_is_there_is_taken_over(driver: CgroupV2, root: Root) -> None:
    driver.prepare()
    driver.create("db", Limits(max=MIB))

    driver.create("db", LIMITS)
    assert limits_of(driver) == driver.expected(LIMITS)

    with pytest.raises(NotAsWritten):
        driver.create("db", Limits(max=MIB, mems=frozenset({7})))
    assert limits_of(driver) == driver.expected(LIMITS)
    assert folder(root).is_dir()


def test_names_of_kernel_files_are_refused(driver: CgroupV2) -> None:
    driver.prepare()

    with pytest.raises(BadName):
        driver.create("memory.max", LIMITS)


def test_directories_that_no_zone_can_be_called_are_passed_over(
    driver: CgroupV2, root: Root, kernel: FakeKernel
) -> None:
    driver.create("db", LIMITS)
    kernel.make(root.cgroup / "zone/Other")

    assert [group.zone for group in driver.groups()] == ["db"]


def test_change_writes_only_what_differs(driver: CgroupV2, kernel: FakeKernel) -> None:
    driver.create("db", LIMITS)
    kernel.log.clear()

    driver.change("db", LIMITS)
    assert kernel.log == []

    driver.change("db", Limits(max=512 * MIB, min=256 * MIB, swap=0, mems=frozenset({2, 3})))
    assert [name for name, _ in kernel.log][:2] == ["memory.max", "memory.min"]
    assert limits_of(driver).mems == frozenset({2, 3})


def test_a_limit_below_use_is_refused_before_anything_is_written(
    driver: CgroupV2, kernel: FakeKernel, root: Root
) -> None:
    driver.create("db", LIMITS)
    (folder(root) / "memory.current").write_text(str(100 * MIB))
    kernel.log.clear()

    with pytest.raises(BelowUse, match="uses 100MiB, more than 64MiB"):
        driver.change("db", Limits(max=64 * MIB, mems=frozenset({2})))

    assert kernel.log == []


def test_a_change_that_fails_half_way_is_undone(driver: CgroupV2, kernel: FakeKernel) -> None:
    driver.create("db", LIMITS)
    kernel.fails["cpuset.mems"] = [errno.EINVAL]

    with pytest.raises(KernelRefused):
        driver.change("db", Limits(max=512 * MIB, min=256 * MIB, mems=frozenset({3})))

    assert limits_of(driver) == driver.expected(LIMITS)


def test_an_undo_does_not_lower_the_limit_below_use(
    driver: CgroupV2, kernel: FakeKernel, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.create("db", LIMITS)
    kernel.fails["cpuset.mems"] = [errno.EINVAL]
    real = kernel.write

    def grow(path: Path, text: str) -> None:
        if path.name == "memory.max":
            (folder(root) / "memory.current").write_text(str(300 * MIB))
        real(path, text)

    monkeypatch.setattr(kernel, "write", grow)
    with pytest.raises(KernelRefused):
        driver.change("db", Limits(max=512 * MIB, mems=frozenset({3})))

    assert limits_of(driver).max == 512 * MIB


def test_sets_are_lifted_while_there_are_members(
    driver: CgroupV2, root: Root, kernel: FakeKernel
) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    driver.attach("db", [40])
    free = Limits(max=256 * MIB, min=128 * MIB, swap=0, mems=frozenset({2}))

    driver.change("db", free)
    assert limits_of(driver) == free
    assert (folder(root) / "cpuset.cpus").read_text() == "0-3"
    assert limits_of(CgroupV2(root, fs=kernel)) == free

    everything = Limits(
        max=256 * MIB, min=128 * MIB, swap=0, mems=frozenset({2}), cpus=frozenset(range(4))
    )
    driver.change("db", everything)
    assert limits_of(driver) == everything


def test_what_the_kernel_lacks_is_not_expected(root: Root) -> None:
    kernel = FakeKernel(root)
    kernel.without = {"memory.swap.max", "cpuset.cpus.partition"}
    driver = CgroupV2(root, fs=kernel)
    driver.prepare()

    found = driver.expected(Limits(max=MIB, swap=0, cpus=frozenset({0}), exclusive_cpus=True))

    assert found == Limits(max=MIB, swap=None, cpus=frozenset({0}))
    driver.create("db", Limits(max=MIB, swap=0, cpus=frozenset({0}), exclusive_cpus=True))


def test_soft_limits_let_go_of_protection_first(driver: CgroupV2, kernel: FakeKernel) -> None:
    driver.create("db", LIMITS)
    kernel.log.clear()

    driver.set_soft_limits("db", high=64 * MIB, minimum=0)

    assert kernel.log == [("memory.min", "0"), ("memory.high", str(64 * MIB))]
    assert (limits_of(driver).high, limits_of(driver).max) == (64 * MIB, 256 * MIB)


def test_reclaim(driver: CgroupV2, kernel: FakeKernel, root: Root) -> None:
    driver.create("db", LIMITS)
    (folder(root) / "memory.current").write_text(str(100 * MIB))

    assert driver.reclaim("db", 64 * MIB)
    assert (folder(root) / "memory.current").read_text() == str(36 * MIB)

    kernel.fails["memory.reclaim"] = [errno.EAGAIN, errno.EPERM]
    assert not driver.reclaim("db", MIB)
    with pytest.raises(KernelRefused):
        driver.reclaim("db", MIB)


def test_reclaim_without_a_file_for_it_goes_by_memory_high(root: Root) -> None:
    class Old(FakeKernel):
        def write(self, path: Path, text: str) -> None:
            super().write(path, text)
            if path.name == "memory.high":
                path.with_name("memory.current").write_text(text)

    kernel = Old(root)
    kernel.without = {"memory.reclaim"}
    driver = CgroupV2(root, fs=kernel)
    driver.create("db", LIMITS)
    (folder(root) / "memory.high").write_text(str(64 * MIB))
    (folder(root) / "memory.current").write_text(str(100 * MIB))

    assert driver.reclaim("db", 64 * MIB)
    assert not driver.reclaim("db", MIB)


def test_protection_of_the_parent(driver: CgroupV2) -> None:
    driver.prepare()

    driver.protect_parent(MIB + 1)

    assert driver.parent_protection() == MIB + 4096


def test_retire_switches_off_what_prepare_switched_on(root: Root, kernel: FakeKernel) -> None:
    control = root.cgroup / "cgroup.subtree_control"
    kernel.write(control, "+memory")
    CgroupV2(root, fs=kernel).create("db", LIMITS)
    assert control.read_text() == "cpuset memory"

    after_restart = CgroupV2(root, fs=kernel)
    after_restart.prepare()
    after_restart.retire()
    assert (root.cgroup / "zone").is_dir()
    after_restart.remove("db")
    after_restart.retire()

    assert not (root.cgroup / "zone").exists()
    assert control.read_text() == "memory"
    after_restart.retire()


def test_retire_leaves_a_controller_that_others_use_by_now(
    driver: CgroupV2, root: Root, kernel: FakeKernel
) -> None:
    driver.prepare()
    kernel.make(root.cgroup / "other")
    kernel.write(root.cgroup / "other/memory.max", str(MIB))

    driver.retire()

    assert (root.cgroup / "cgroup.subtree_control").read_text() == "memory"


def test_missing_controllers(root: Root) -> None:
    driver = CgroupV2(root, fs=FakeKernel(root, controllers="cpu memory"))

    with pytest.raises(Unsupported, match="no controller cpuset"):
        driver.prepare()
    assert not (root.cgroup / "zone").exists()


def test_busy_for_a_moment_and_for_ever(
    driver: CgroupV2, kernel: FakeKernel, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned.kernel.cgroup.v2._ENABLE_SECONDS", 0.02)
    kernel.fails["cgroup.subtree_control"] = [errno.EBUSY] * 10_000
    with pytest.raises(KernelRefused) as caught:
        driver.prepare()
    assert "in the way" in caught.value.hint
    assert not (root.cgroup / "zone").exists()

    kernel.fails["cgroup.subtree_control"] = [errno.EBUSY]
    driver.prepare()
    assert (root.cgroup / "cgroup.subtree_control").read_text() == "cpuset memory"


def test_exclusive_cpus(driver: CgroupV2, root: Root) -> None:
    alone = Limits(max=MIB, cpus=frozenset({3}), exclusive_cpus=True)
    driver.create("db", alone)
    assert limits_of(driver) == alone
    assert (root.cgroup / "zone/cpuset.cpus.exclusive").read_text() == "3"

    driver.create("web", Limits(max=MIB, cpus=frozenset({1}), exclusive_cpus=True))
    assert (root.cgroup / "zone/cpuset.cpus.exclusive").read_text() == "1,3"

    driver.change("db", Limits(max=MIB, cpus=frozenset({2}), exclusive_cpus=True))
    assert (root.cgroup / "zone/cpuset.cpus.exclusive").read_text() == "1-2"
    driver.change("db", Limits(max=MIB, cpus=frozenset({2})))
    assert not limits_of(driver).exclusive_cpus
    driver.remove("web")
    assert not (root.cgroup / "zone/cpuset.cpus.exclusive").read_text().strip()


def test_an_invalid_partition_is_undone_and_says_why(root: Root) -> None:
    kernel = FakeKernel(root)
    kernel.without = {"cpuset.cpus.exclusive"}
    driver = CgroupV2(root, fs=kernel)

    with pytest.raises(Unsupported, match="Parent is not a partition root"):
        driver.create("db", Limits(max=MIB, cpus=frozenset({3}), exclusive_cpus=True))
    assert not folder(root).exists()

    driver.create("db", Limits(max=MIB, cpus=frozenset({3})))
    with pytest.raises(Unsupported):
        driver.change("db", Limits(max=2 * MIB, cpus=frozenset({3}), exclusive_cpus=True))
    assert (folder(root) / "cpuset.cpus.partition").read_text() == "member"
    assert limits_of(driver).max == MIB
