# SPDX-License-Identifier: Apache-2.0
"""The driver for systemd: who comes into a zone and who leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import (
    MIB,
    FakeKernel,
    FakeManager,
    add_process,
    fake_root,
)
from zoned.errors import (
    NoSuchProcess,
    NotAsWritten,
    ServiceManager,
    TryLater,
)
from zoned.kernel.cgroup.systemd import CgroupSystemd
from zoned.model.zone import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.kernel.systemd_bus import Property

LIMITS = Limits(
    max=256 * MIB + 5, min=128 * MIB, swap=0, mems=frozenset({2}), cpus=frozenset({0, 1})
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return fake_root(tmp_path)


@pytest.fixture
def manager(root: Root) -> FakeManager:
    return FakeManager(FakeKernel(root))


@pytest.fixture
def driver(root: Root, manager: FakeManager) -> CgroupSystemd:
    return CgroupSystemd(root, fs=manager.kernel, bus=manager)


def folder(root: Root, unit: str = "zone-db.slice") -> Path:
    return root.cgroup / "zone.slice" / unit


def test_attach_is_a_scope_in_the_slice(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)
    for pid in (40, 41):
        add_process(root, pid)

    driver.attach("db", [40, 41])
    driver.attach("db", [40])

    (scope,) = [unit for unit in manager.units if unit.endswith(".scope")]
    assert scope.startswith("zoned-p40-777-")
    assert manager.units[scope]["OOMPolicy"] == "continue"
    assert driver.location(41) == f"/zone.slice/zone-db.slice/{scope}"
    group = driver.group("db")
    assert group is not None
    assert group.pids == (40, 41)
    assert driver.foreign_units("db") == ()


def test_an_older_systemd_has_no_oom_policy_for_scopes(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    manager.has_oom_policy = False
    driver.create("db", LIMITS)
    for pid in (40, 41):
        add_process(root, pid)

    driver.attach("db", [40])
    manager.calls.clear()
    driver.attach("db", [41])

    assert len(manager.calls) == 1
    assert driver.pids_below("/zone.slice/zone-db.slice") == (40, 41)


def test_a_process_that_ends_meanwhile(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)

    def ends(unit: str, properties: Sequence[Property]) -> None:
        (root.proc / "40/stat").unlink()
        raise ServiceManager("Failed to set unit properties")

    manager.start_transient_unit = ends  # type: ignore[method-assign]
    with pytest.raises(NoSuchProcess):
        driver.attach("db", [40])


def test_a_process_that_did_not_arrive(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    manager.start_transient_unit = lambda *_: None  # type: ignore[method-assign]

    with pytest.raises(NotAsWritten, match="process 40 is in /"):
        driver.attach("db", [40])


def test_nobody_enters_a_frozen_slice(driver: CgroupSystemd, root: Root) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    (folder(root) / "cgroup.freeze").write_text("1\n")

    with pytest.raises(TryLater):
        driver.attach("db", [40])


def test_release_goes_back_to_a_unit_that_still_runs(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    manager.add_service("web.service", "system.slice", 40)
    former = driver.location(40)
    assert former == "/system.slice/web.service"
    driver.attach("db", [40])

    driver.release([40], former)
    assert driver.location(40) == former

    driver.attach("db", [40])
    manager.units["web.service"]["ActiveState"] = "inactive"
    driver.release([40, 41], former)
    assert (driver.location(40) or "").startswith("/system.slice/zoned-p40-777-")


def test_release_into_a_delegated_unit_is_systemds_to_do(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    add_process(root, 41)
    manager.add_service("box.service", "system.slice", 40)
    manager.units["box.service"]["Delegate"] = True
    manager.kernel.make(root.cgroup / "system.slice/box.service/in")
    manager.write(root.cgroup / "system.slice/box.service/in/cgroup.procs", "41")
    former = driver.location(41)
    driver.attach("db", [41])
    manager.kernel.log.clear()

    driver.release([41], former)

    assert ("attach_processes", "box.service /in") in manager.calls
    assert driver.location(41) == former
    assert manager.kernel.log == [("cgroup.procs", "41")]


@pytest.mark.parametrize("former", [None, "/", "/zone.slice/zone-db.slice/x.scope", "/absent"])
def test_release_to_nowhere_is_a_scope_in_the_system_slice(
    driver: CgroupSystemd, root: Root, former: str | None
) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    driver.attach("db", [40])

    driver.release([40], former)

    assert (driver.location(40) or "").startswith("/system.slice/zoned-p40-777-")
    driver.release([41], former)


def test_release_does_not_go_back_into_a_zone(driver: CgroupSystemd, root: Root) -> None:
    driver.create("db", LIMITS)
    for pid in (40, 41):
        add_process(root, pid)
    driver.attach("db", [40, 41])
    former = driver.location(40)

    driver.release([40], former)

    assert (driver.location(40) or "").startswith("/system.slice/")
    assert driver.location(41) == former
