# SPDX-License-Identifier: Apache-2.0
"""The driver for cgroup v2: who comes into a zone and who leaves it."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import MIB, FakeKernel, add_process, fake_root, refused
from zoned.errors import (
    HasMembers,
    KernelRefused,
    KernelThread,
    NoSuchCgroup,
    NoSuchProcess,
    NoSuchZone,
    TryLater,
)
from zoned.kernel.cgroup.v2 import CgroupV2
from zoned.model.zone import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
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


def test_attach_and_release(driver: CgroupV2, root: Root, kernel: FakeKernel) -> None:
    driver.create("db", LIMITS)
    kernel.make(root.cgroup / "other")
    add_process(root, 40)
    kernel.write(root.cgroup / "other/cgroup.procs", "40")
    assert driver.location(40) == "/other"
    assert driver.pids_below("/other") == (40,)

    driver.attach("db", [40])
    assert driver.location(40) == "/zone/db/members"

    driver.release([40, 41], "/other")
    assert driver.location(40) == "/other"

    driver.attach("db", [40])
    kernel.remove(root.cgroup / "other")
    driver.release([40], "/other")
    assert driver.location(40) == "/"
    assert driver.location(41) is None


def test_release_does_not_go_back_into_a_zone(driver: CgroupV2, root: Root) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    driver.attach("db", [40])

    driver.release([40], "/zone/db/members")

    assert driver.location(40) == "/"


def test_release_where_the_former_group_takes_none(
    driver: CgroupV2, root: Root, kernel: FakeKernel
) -> None:
    driver.create("db", LIMITS)
    kernel.make(root.cgroup / "other")
    add_process(root, 40)
    driver.attach("db", [40])
    kernel.fails["cgroup.procs"] = [errno.EBUSY]

    driver.release([40], "/other")

    assert driver.location(40) == "/"


def test_who_cannot_be_a_member(driver: CgroupV2, root: Root, kernel: FakeKernel) -> None:
    driver.create("db", LIMITS)
    add_process(root, 2, flags=0x00200000)
    add_process(root, 40)
    kernel.log.clear()

    with pytest.raises(NoSuchProcess, match="41"):
        driver.attach("db", [40, 41])
    with pytest.raises(KernelThread):
        driver.attach("db", [40, 2])
    assert kernel.log == []
    with pytest.raises(NoSuchZone):
        driver.attach("absent", [40])


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ESRCH, NoSuchProcess),
        (errno.EINVAL, KernelThread),
        (errno.EBUSY, KernelRefused),
    ],
)
def test_an_attach_that_fails_puts_all_back(
    driver: CgroupV2,
    root: Root,
    kernel: FakeKernel,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
) -> None:
    driver.create("db", LIMITS)
    kernel.make(root.cgroup / "other")
    for pid in (40, 41):
        add_process(root, pid)
        kernel.write(root.cgroup / "other/cgroup.procs", str(pid))
    monkeypatch.setattr(kernel, "write", _second_fails(kernel, number))

    with pytest.raises(error):
        driver.attach("db", [40, 41])

    assert [driver.location(pid) for pid in (40, 41)] == ["/other", "/other"]


def _second_fails(kernel: FakeKernel, number: int) -> Callable[[Path, str], None]:
    """Return a way to write where the second write is refused."""
    real, count = kernel.write, itertools.count(1)

    def write(path: Path, text: str) -> None:
        if next(count) == 2:
            raise refused(path, text, number)
        real(path, text)

    return write


def test_a_container_inside_a_zone_is_the_zones(
    driver: CgroupV2, root: Root, kernel: FakeKernel
) -> None:
    driver.create("db", LIMITS)
    kernel.make(folder(root) / "box")
    add_process(root, 40)
    kernel.write(folder(root) / "box/cgroup.procs", "40")
    group = driver.group("db")
    assert group is not None
    assert group.pids == (40,)

    driver.attach("db", [40])
    assert driver.location(40) == "/zone/db/box"
    with pytest.raises(HasMembers):
        driver.remove("db")
    driver.kill("db")
    driver.remove("db")
    assert not folder(root).exists()


@pytest.mark.parametrize("frozen", ["zone", "zone/db"])
def test_nobody_enters_a_frozen_zone(driver: CgroupV2, root: Root, frozen: str) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    (root.cgroup / frozen / "cgroup.freeze").write_text("1\n")

    with pytest.raises(TryLater, match="is frozen"):
        driver.attach("db", [40])


def test_foreign_groups(driver: CgroupV2) -> None:
    for path in ("/", "/absent", "/../x"):
        with pytest.raises(NoSuchCgroup):
            driver.pids_below(path)
