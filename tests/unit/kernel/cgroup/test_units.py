# SPDX-License-Identifier: Apache-2.0
"""Confining and placing services that run already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import FakeKernel, FakeManager, add_process, fake_root
from zoned.errors import NoSuchUnit, NotAsWritten, Unsupported
from zoned.kernel.cgroup.units import SystemdUnits

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return fake_root(tmp_path)


@pytest.fixture
def manager(root: Root) -> FakeManager:
    manager = FakeManager(FakeKernel(root))
    add_process(root, 40)
    manager.add_service("web.service", "system.slice", 40)
    return manager


@pytest.fixture
def units(root: Root, manager: FakeManager) -> SystemdUnits:
    return SystemdUnits(root, bus=manager)


def test_a_running_unit(units: SystemdUnits) -> None:
    assert units.canonical("web") == "web.service"
    assert units.unit_cgroup("web") == "/system.slice/web.service"
    assert units.unit_nodes("web.service") == frozenset()


@pytest.mark.parametrize("name", ["absent", "../../etc", "a b", ""])
def test_no_such_unit(units: SystemdUnits, name: str) -> None:
    with pytest.raises(NoSuchUnit):
        units.unit_cgroup(name)
    with pytest.raises(NoSuchUnit):
        units.place_unit(name, "db")


def test_a_unit_that_does_not_run(units: SystemdUnits, manager: FakeManager) -> None:
    manager.units["web.service"]["ActiveState"] = "inactive"

    with pytest.raises(NoSuchUnit, match="not running"):
        units.unit_cgroup("web")


def test_confine_and_lift_while_it_runs(
    units: SystemdUnits, manager: FakeManager, root: Root
) -> None:
    file = root.cgroup / "system.slice/web.service/cpuset.mems"
    units.confine_unit("web", frozenset({2, 3}))
    assert units.unit_nodes("web") == frozenset({2, 3})
    assert file.read_text() == "2,3"
    drop_in = root.run / "systemd/system.control/web.service.d/50-AllowedMemoryNodes.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.touch()

    units.confine_unit("web", frozenset())

    assert units.unit_nodes("web") == frozenset()
    assert file.read_text() == "0,1,2,3"
    assert not drop_in.parent.exists()


def test_nodes_that_do_not_arrive(
    units: SystemdUnits, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned.kernel.cgroup.units._SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(manager, "set_unit_properties", lambda *_: None)

    with pytest.raises(NotAsWritten, match=r"cpuset\.mems"):
        units.confine_unit("web", frozenset({2}))


def test_place_and_unplace(units: SystemdUnits, manager: FakeManager, root: Root) -> None:
    drop_in = root.run / "systemd/system/web.service.d/50-zoned.conf"

    units.place_unit("web", "a-b")
    assert drop_in.read_text() == "[Service]\nSlice=zone-a\\x2db.slice\n"
    assert manager.calls[-1] == ("reload", "")

    manager.calls.clear()
    units.unplace_unit("web")
    units.unplace_unit("web")
    assert not drop_in.parent.exists()
    assert manager.calls == [("reload", "")]


def test_unplace_keeps_the_drop_ins_of_others(units: SystemdUnits, root: Root) -> None:
    units.place_unit("web", "db")
    other = root.run / "systemd/system/web.service.d/60-other.conf"
    other.touch()

    units.unplace_unit("web")

    assert other.exists()
    assert not other.with_name("50-zoned.conf").exists()


def test_a_slice_that_somebody_else_sets(
    units: SystemdUnits, manager: FakeManager, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "reload", lambda: None)

    with pytest.raises(NotAsWritten, match=r"Slice=system\.slice"):
        units.place_unit("web", "db")

    assert not (root.run / "systemd/system/web.service.d").exists()


def test_only_services_have_a_slice_to_change(units: SystemdUnits, manager: FakeManager) -> None:
    manager.units["web.socket"] = {"Id": "web.socket", "ActiveState": "active"}

    with pytest.raises(Unsupported):
        units.place_unit("web.socket", "db")
