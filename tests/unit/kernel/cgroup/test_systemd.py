# SPDX-License-Identifier: Apache-2.0
"""The driver for systemd, on a systemd made of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel.cgroup.fakes import (
    MIB,
    FakeKernel,
    FakeManager,
    add_process,
    fake_root,
)
from zoned.errors import (
    HasMembers,
    NotAsWritten,
    UnitInZone,
    Unsupported,
)
from zoned.kernel.cgroup.plan import Field
from zoned.kernel.cgroup.systemd import CgroupSystemd, limit_property, mask, unmask
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


def limits_of(driver: CgroupSystemd, zone: str = "db") -> Limits:
    group = driver.group(zone)
    assert group is not None
    return group.limits


@given(st.frozensets(st.integers(min_value=0, max_value=200)))
def test_masks(ids: frozenset[int]) -> None:
    assert unmask(mask(ids)) == ids


def test_properties() -> None:
    assert limit_property(Field.MEMS, frozenset({2})) == ("AllowedMemoryNodes", ("ay", b"\x04"))
    assert limit_property(Field.CPUS, frozenset({8})) == ("AllowedCPUs", ("ay", b"\x00\x01"))
    assert limit_property(Field.CPUS, None) == ("AllowedCPUs", ("ay", b""))
    assert limit_property(Field.MAX, None) == ("MemoryMax", ("t", (1 << 64) - 1))
    assert limit_property(Field.MIN, 4096) == ("MemoryMin", ("t", 4096))


def test_create_makes_a_slice_with_all_limits_at_once(
    driver: CgroupSystemd, manager: FakeManager
) -> None:
    driver.create("a-b", LIMITS)

    assert manager.calls == [
        ("start_transient_unit", "zone.slice"),
        ("start_transient_unit", r"zone-a\x2db.slice"),
    ]
    assert limits_of(driver, "a-b") == driver.expected(LIMITS)
    assert [(group.zone, group.path) for group in driver.groups()] == [
        ("a-b", r"/zone.slice/zone-a\x2db.slice")
    ]


def test_a_failed_create_leaves_nothing(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    with pytest.raises(NotAsWritten, match="effective"):
        driver.create("db", Limits(max=MIB, mems=frozenset({7})))

    assert not folder(root).exists()
    assert "zone-db.slice" not in manager.units


def test_a_slice_that_a_service_brought_with_it_is_taken_over(
    driver: CgroupSystemd, manager: FakeManager, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned.kernel.cgroup.systemd._GONE_SECONDS", 0.01)
    add_process(root, 40)
    manager.add_service("early.service", "zone-db.slice", 40)
    drop_ins = root.run / "systemd/system.control/zone-db.slice.d"
    drop_ins.mkdir(parents=True)
    (drop_ins / "50-MemoryMax.conf").touch()

    driver.create("db", LIMITS)

    assert limits_of(driver) == driver.expected(LIMITS)
    assert driver.foreign_units("db") == ("early.service",)
    driver.kill("db")
    manager.units["early.service"]["ActiveState"] = "inactive"
    manager.kernel.remove(folder(root) / "early.service")
    driver.remove("db")
    assert not drop_ins.exists()


def test_a_slice_that_is_loaded_but_stopped_is_started(
    driver: CgroupSystemd, manager: FakeManager
) -> None:
    driver.prepare()
    manager.units["zone-db.slice"] = {"ActiveState": "inactive", "LoadState": "loaded"}
    manager.kernel.make(manager.folder("zone-db.slice"))
    manager.kernel.remove(manager.folder("zone-db.slice"))
    real = manager.set_unit_properties

    def set_stopped(unit: str, properties: Sequence[Property]) -> None:
        if manager.folder(unit).exists():
            real(unit, properties)

    manager.set_unit_properties = set_stopped  # type: ignore[method-assign]
    driver.create("db", LIMITS)

    assert ("start_unit", "zone-db.slice") in manager.calls
    assert limits_of(driver) == driver.expected(LIMITS)


def test_change_goes_property_by_property(driver: CgroupSystemd, manager: FakeManager) -> None:
    driver.create("db", LIMITS)
    manager.calls.clear()

    driver.change("db", Limits(max=64 * MIB, min=MIB, swap=0, mems=frozenset({1, 2})))

    names = [what.split()[1] for _, what in manager.calls]
    assert names == ["MemoryMin", "MemoryMax", "AllowedCPUs", "AllowedCPUs", "AllowedMemoryNodes"]
    assert limits_of(driver).mems == frozenset({1, 2})


def test_a_zone_with_members_stays(driver: CgroupSystemd, manager: FakeManager, root: Root) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    driver.attach("db", [40])

    with pytest.raises(HasMembers):
        driver.remove("db")

    assert not [call for call in manager.calls if call[0] == "stop_unit"]


def test_a_zone_with_a_service_stays(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)
    add_process(root, 40)
    manager.add_service("web.service", "zone-db.slice", 40)

    with pytest.raises(UnitInZone, match=r"web\.service"):
        driver.remove("db")

    # It is given another slice, and still runs here until it is restarted.
    manager.units["web.service"]["Slice"] = "system.slice"
    with pytest.raises(UnitInZone, match=r"web\.service"):
        driver.remove("db")
    assert not [call for call in manager.calls if call[0] == "stop_unit"]


def test_removal_stops_the_slice_and_sees_its_directory_go(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)

    driver.remove("db")

    assert ("stop_unit", "zone-db.slice fail") in manager.calls
    assert not folder(root).exists()
    driver.remove("db")


def test_what_others_left_in_the_slice_goes_too(
    driver: CgroupSystemd, manager: FakeManager, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoned.kernel.cgroup.systemd._GONE_SECONDS", 0.01)
    driver.create("db", LIMITS)
    manager.kernel.make(folder(root) / "left")

    def stops_only(unit: str, mode: str = "fail") -> None:
        manager.calls.append(("stop_unit", f"{unit} {mode}"))
        del manager.units[unit]

    manager.stop_unit = stops_only  # type: ignore[method-assign]
    driver.remove("db")

    assert not folder(root).exists()


def test_a_slice_that_stays_loaded_loses_its_limits(
    driver: CgroupSystemd, manager: FakeManager, root: Root
) -> None:
    driver.create("db", LIMITS)
    real = manager.stop_unit

    def keeps_loaded(unit: str, mode: str = "fail") -> None:
        kept = manager.units[unit]
        real(unit, mode)
        manager.units[unit] = kept | {"ActiveState": "inactive"}

    manager.stop_unit = keeps_loaded  # type: ignore[method-assign]
    changed: list[str] = []
    manager.set_unit_properties = (  # type: ignore[method-assign]
        lambda unit, properties: changed.extend(name for name, _ in properties)
    )
    driver.remove("db")

    assert set(changed) == {
        "MemoryMax",
        "MemoryHigh",
        "MemoryMin",
        "MemorySwapMax",
        "AllowedCPUs",
        "AllowedMemoryNodes",
    }
    assert not folder(root).exists()


def test_the_parents_protection(
    driver: CgroupSystemd, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.prepare()
    driver.prepare()
    assert manager.calls == [("start_transient_unit", "zone.slice")]

    driver.protect_parent(MIB + 1)
    assert driver.parent_protection() == MIB + 4096

    monkeypatch.setattr("zoned.kernel.cgroup.systemd._SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(manager, "set_unit_properties", lambda *_: None)
    with pytest.raises(NotAsWritten, match="MemoryMin"):
        driver.protect_parent(2 * MIB)


def test_retire(driver: CgroupSystemd, manager: FakeManager, root: Root) -> None:
    driver.create("db", LIMITS)
    driver.retire()
    assert folder(root).is_dir()

    driver.remove("db")
    add_process(root, 40)
    manager.add_service("web.service", "zone.slice", 40)
    driver.retire()
    assert (root.cgroup / "zone.slice").is_dir()

    del manager.units["web.service"]
    manager.write(root.cgroup / "cgroup.procs", "40")
    manager.kernel.remove(root.cgroup / "zone.slice/web.service")
    driver.retire()
    assert not (root.cgroup / "zone.slice").exists()
    driver.retire()


def test_missing_controllers(root: Root) -> None:
    manager = FakeManager(FakeKernel(root, controllers="cpu cpuset"))
    driver = CgroupSystemd(root, fs=manager.kernel, bus=manager)

    with pytest.raises(Unsupported, match="no controller memory"):
        driver.prepare()
