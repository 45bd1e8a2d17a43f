# SPDX-License-Identifier: Apache-2.0
"""Units of systemd kept off nodes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.kernel.cgroup.fakes import FakeKernel, FakeManager
from tests.unit.kernel.cgroup.fences import ALL, EVER, LEFT, enter, fenced_root
from zoned.errors import KernelRefused, NotAsWritten
from zoned.kernel.cgroup.fence import Outsider
from zoned.kernel.cgroup.fence_systemd import FenceSystemd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.kernel.systemd_bus import Property

DROP_IN = "50-AllowedMemoryNodes.conf"


class WritingManager(FakeManager):
    """Writes down what is set, as systemd does."""

    def set_unit_properties(self, unit: str, properties: Sequence[Property]) -> None:
        super().set_unit_properties(unit, properties)
        for name, _ in properties:
            folder = self.kernel.root.run / "systemd" / self.place(unit) / f"{unit}.d"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"50-{name}.conf").touch()

    def place(self, unit: str) -> str:
        return "transient" if self.units[unit].get("Transient") else "system.control"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return fenced_root(tmp_path)


@pytest.fixture
def manager(root: Root) -> WritingManager:
    manager = WritingManager(FakeKernel(root))
    for unit in ("init.scope", "zone.slice", "zoned.service", "data.mount"):
        manager.units[unit] = {"Slice": "-.slice"}
    manager.folder = lambda unit: root.cgroup / unit  # type: ignore[method-assign]
    for unit in list(manager.units):
        manager._add(unit, {"Slice": "-.slice"})
    manager._enable(root.cgroup / "system.slice")
    return manager


@pytest.fixture
def fence(root: Root, manager: WritingManager) -> FenceSystemd:
    return FenceSystemd(root, fs=manager.kernel, bus=manager)


def shown(fence: FenceSystemd, name: str = "system.slice") -> Outsider:
    return next(each for each in fence.outsiders() if each.name == name)


def mems(root: Root, group: str = "system.slice") -> str:
    return (root.cgroup / group / "cpuset.mems").read_text()


def drop_ins(root: Root) -> list[str]:
    folder = root.run / "systemd"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.conf"))


def test_units_by_name_and_other_groups_by_path(
    fence: FenceSystemd, root: Root, manager: WritingManager
) -> None:
    enter(manager.kernel, "zoned.service", os.getpid())
    enter(manager.kernel, "zoned.service", 42)
    for stranger in ("docker", "unknown.slice", "_cgroup.service"):
        manager.kernel.make(root.cgroup / stranger)
    manager.units["cgroup.service"] = {"AllowedMemoryNodes": b"\x02"}

    found = {each.name: each for each in fence.outsiders()}

    assert set(found) == {
        "/docker",
        "/unknown.slice",
        "cgroup.service",
        "data.mount",
        "init.scope",
        "system.slice",
    }
    assert found["cgroup.service"].own == frozenset({1})
    assert found["system.slice"] == Outsider(
        name="system.slice", written=frozenset(), effective=ALL
    )


@pytest.mark.parametrize("group", ["init.scope", "system.slice"])
def test_a_daemon_among_others(fence: FenceSystemd, manager: WritingManager, group: str) -> None:
    enter(manager.kernel, group, os.getpid())
    enter(manager.kernel, group, 1)

    assert [each.name for each in fence.outsiders() if each.holds_daemon] == [group]


def test_confined_and_freed(fence: FenceSystemd, root: Root, manager: WritingManager) -> None:
    fence.confine("system.slice", LEFT)
    assert shown(fence).own == shown(fence).written == LEFT
    assert drop_ins(root) == [f"system.control/system.slice.d/{DROP_IN}"]

    fence.lift("system.slice", frozenset())
    assert shown(fence).own == shown(fence).written == frozenset()
    assert drop_ins(root) == []
    assert not (root.run / "systemd/system.control/system.slice.d").exists()


def test_a_unit_with_processes_is_freed_for_all_nodes_ever(
    fence: FenceSystemd, manager: WritingManager
) -> None:
    enter(manager.kernel, "system.slice", 40)
    fence.confine("system.slice", LEFT)

    fence.lift("system.slice", frozenset())

    assert (shown(fence).own, shown(fence).written) == (frozenset(), EVER)


def test_a_transient_unit_has_its_file_elsewhere(
    fence: FenceSystemd, root: Root, manager: WritingManager
) -> None:
    manager.units["init.scope"]["Transient"] = True
    fence.confine("init.scope", LEFT)
    assert drop_ins(root) == [f"transient/init.scope.d/{DROP_IN}"]

    fence.lift("init.scope", frozenset())
    assert drop_ins(root) == []


def test_what_an_administrator_set_until_the_next_boot_stays_set(
    fence: FenceSystemd, root: Root, manager: WritingManager
) -> None:
    own = frozenset({1, 3})
    manager.set_unit_properties("system.slice", [("AllowedMemoryNodes", ("ay", b"\x0a"))])
    assert shown(fence).own == own
    before = drop_ins(root)

    for nodes in ({1}, {1, 2}, {1}):
        fence.confine("system.slice", frozenset(nodes))
    fence.lift("system.slice", own)

    assert shown(fence).own == shown(fence).written == own
    assert drop_ins(root) == before


def test_what_a_unit_file_says_is_not_written_down_twice(
    fence: FenceSystemd, root: Root, manager: WritingManager
) -> None:
    manager.units["system.slice"]["AllowedMemoryNodes"] = b"\x0a"
    fence.confine("system.slice", frozenset({1}))

    fence.lift("system.slice", frozenset({1, 3}))

    assert shown(fence).own == frozenset({1, 3})
    assert drop_ins(root) == []


def test_a_unit_that_does_not_run_any_more(
    fence: FenceSystemd, root: Root, manager: WritingManager
) -> None:
    fence.confine("data.mount", LEFT)
    manager.kernel.remove(root.cgroup / "data.mount")
    del manager.units["data.mount"]

    fence.lift("data.mount", frozenset())

    assert drop_ins(root) == []


def test_what_was_not_confined_after_all_is_not_touched(
    fence: FenceSystemd, root: Root, manager: WritingManager
) -> None:
    enter(manager.kernel, "system.slice", 40)
    manager.calls.clear()
    fence.lift("system.slice", frozenset())
    assert manager.calls == []
    assert mems(root) == ""


def test_groups_that_are_no_units(fence: FenceSystemd, root: Root, manager: WritingManager) -> None:
    manager.kernel.make(root.cgroup / "docker")
    fence.confine("/docker", LEFT)
    assert mems(root, "docker") == "0-2,4"
    fence.lift("/docker", frozenset())
    assert mems(root, "docker") == ""
    assert drop_ins(root) == []


def test_nodes_that_do_not_arrive(
    fence: FenceSystemd, manager: WritingManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned.kernel.cgroup.fence_systemd._SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(manager, "set_unit_properties", lambda *_: None)
    with pytest.raises(NotAsWritten, match=r"cpuset\.mems"):
        fence.confine("system.slice", LEFT)


def test_a_file_that_cannot_be_removed(
    fence: FenceSystemd, root: Root, manager: WritingManager
) -> None:
    (root.run / f"systemd/system.control/system.slice.d/{DROP_IN}").mkdir(parents=True)
    with pytest.raises(KernelRefused, match="cannot remove"):
        fence.lift("system.slice", frozenset())
