# SPDX-License-Identifier: Apache-2.0
"""Units of the service manager: attached whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fakes import GIB, FakeUnits, World, make_world, run_job, started
from zoned.engine.migration import whole
from zoned.errors import (
    NoSuchProcess,
    NoSuchUnit,
    NotAMember,
    ServiceManager,
    TryLater,
    Unsupported,
)
from zoned.model.job import JobKind
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.engine import Engine
    from zoned.model.job import Progress

WEB = "web.service"


@pytest.fixture
def units() -> FakeUnits:
    found = FakeUnits({WEB: "/system/web"})
    found.nodes[WEB] = frozenset({0, 1})
    return found


@pytest.fixture
def world(tmp_path: Path, units: FakeUnits) -> World:
    return make_world(tmp_path, units=units)


@pytest.fixture(autouse=True)
def zones(engine: Engine) -> None:
    engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    engine.create(ZoneSpec(name="dw", size=GIB, nodes="1"))


def attach(engine: Engine, unit: str = WEB, zone: str = "db") -> Progress:
    return run_job(engine, JobKind.ATTACH, name=zone, unit=unit)


def detach(engine: Engine, unit: str = WEB) -> Progress:
    return run_job(engine, JobKind.DETACH, name="db", unit=unit)


def attached(engine: Engine) -> dict[str, tuple[str, ...]]:
    return {name: zone.units for name, zone in engine.machine.store.zones.items() if zone.units}


def assert_free(engine: Engine, units: FakeUnits) -> None:
    assert units.nodes[WEB] == frozenset({0, 1})
    assert not units.placed
    assert not attached(engine)
    assert not engine.machine.ledger.touched.units


@pytest.mark.parametrize("name", [WEB, "web"])
def test_attach_and_detach(world: World, engine: Engine, units: FakeUnits, name: str) -> None:
    world.add_process(7, "/system/web")
    moved = attach(engine, name)
    assert moved.processes == 1
    assert len([note for note in moved.notes if note.startswith(f"{WEB} is charged to")]) == 1
    assert units.nodes[WEB] == frozenset({0})
    assert units.placed == {WEB: "db"}
    assert attached(engine) == {"db": (WEB,)}
    assert attach(engine).processes == 1
    assert attached(engine) == {"db": (WEB,)}
    assert detach(engine, name).notes == (f"{WEB} is no longer confined to zone db",)
    assert_free(engine, units)


@pytest.mark.parametrize("method", ["confine_unit", "place_unit"])
def test_after_an_error_it_is_as_it_was(engine: Engine, units: FakeUnits, method: str) -> None:
    units.failures.at(method, ServiceManager("no"))
    with pytest.raises(ServiceManager, match="no"):
        attach(engine)
    assert_free(engine, units)


def test_an_error_again_does_not_leave_it_half_attached(engine: Engine, units: FakeUnits) -> None:
    attach(engine)
    units.failures.at("place_unit", ServiceManager("no"))
    with pytest.raises(ServiceManager):
        attach(engine)
    assert_free(engine, units)


def test_where_not_even_undoing_works_the_first_error_is_told(
    world: World, engine: Engine, units: FakeUnits
) -> None:
    units.failures.at("place_unit", ServiceManager("first"))
    units.failures.at("unplace_unit", TryLater("second"))
    with pytest.raises(ServiceManager, match="first"):
        attach(engine)
    assert_free(started(world), units)


def test_a_process_that_ends_meanwhile_is_no_error(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> int:
        raise NoSuchProcess("gone")

    world.add_process(7, "/system/web")
    monkeypatch.setattr(whole, "move_all_pages", gone)
    attach(engine)
    assert attached(engine) == {"db": (WEB,)}


def test_who_cannot_be_attached_or_detached(engine: Engine, units: FakeUnits) -> None:
    with pytest.raises(NoSuchUnit):
        attach(engine, "ghost")
    with pytest.raises(NotAMember):
        detach(engine, "ghost.service")
    with pytest.raises(NotAMember):
        detach(engine)
    units.placed["stopped.service"] = "elsewhere"
    with pytest.raises(NoSuchUnit, match="not running"):
        attach(engine, "stopped")
    assert not attached(engine)


def test_without_systemd(tmp_path: Path) -> None:
    engine = started(make_world(tmp_path / "bare"))
    engine.create(ZoneSpec(name="db", size=GIB))
    with pytest.raises(Unsupported) as error:
        attach(engine)
    assert error.value.hint


def test_from_zone_to_zone(engine: Engine, units: FakeUnits) -> None:
    attach(engine)
    attach(engine, zone="dw")
    assert attached(engine) == {"dw": (WEB,)}
    assert units.nodes[WEB] == frozenset({1})
    run_job(engine, JobKind.DESTROY, name="dw", drain="db")
    assert attached(engine) == {"db": (WEB,)}
    assert units.placed == {WEB: "db"}
    run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert_free(engine, units)


def test_the_members_of_a_killed_zone_are_lifted(engine: Engine, units: FakeUnits) -> None:
    attach(engine)
    run_job(engine, JobKind.DESTROY, name="db", kill=True)
    assert_free(engine, units)


def test_a_unit_that_is_gone_can_be_detached(engine: Engine, units: FakeUnits) -> None:
    attach(engine)
    units.cgroups.clear()
    units.placed.clear()
    detach(engine)
    assert not attached(engine)


def test_a_unit_in_the_slice_only_by_its_drop_in_does_not_hold_the_zone(
    world: World, engine: Engine, units: FakeUnits
) -> None:
    attach(engine)
    world.groups.units["db"] = (WEB,)
    units.on_unplace = lambda _: world.groups.units.clear()
    run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert_free(engine, units)


def test_after_a_reboot_it_is_attached_again(world: World, engine: Engine) -> None:
    attach(engine)
    fresh = FakeUnits({WEB: "/system/web"})
    world.units, world.boot = fresh, "next boot"
    world.groups.made.clear()
    world.groups.there, world.groups.minimum = False, 0
    again = started(world)
    assert fresh.placed == {WEB: "db"}
    assert fresh.nodes[WEB] == frozenset({0})
    assert attached(again) == {"db": (WEB,)}


def test_after_a_reboot_one_that_does_not_run_is_only_placed(world: World, engine: Engine) -> None:
    attach(engine)
    fresh = FakeUnits()
    world.units, world.boot = fresh, "next boot"
    started(world)
    assert fresh.placed == {WEB: "db"}
    assert not fresh.nodes


def test_one_that_cannot_be_restored_does_not_hold_up_the_start(
    world: World, engine: Engine, units: FakeUnits, caplog: pytest.LogCaptureFixture
) -> None:
    attach(engine)
    world.boot = "next boot"
    units.failures.at("place_unit", ServiceManager("bus is away"))
    started(world)
    assert f"cannot attach {WEB}: [service-manager] bus is away" in caplog.text


def test_one_that_was_half_attached_is_freed_at_the_start(
    world: World, engine: Engine, units: FakeUnits
) -> None:
    engine.machine.ledger.unit_confined(WEB, frozenset({0, 1}))
    units.nodes[WEB] = frozenset({0})
    units.placed[WEB] = "db"
    assert_free(started(world), units)


@pytest.mark.parametrize("method", ["unplace_unit", "confine_unit"])
def test_a_detach_that_fails_can_be_repeated(engine: Engine, units: FakeUnits, method: str) -> None:
    attach(engine)
    units.failures.at(method, ServiceManager("no"))
    with pytest.raises(ServiceManager):
        detach(engine)
    assert attached(engine) == {"db": (WEB,)}
    detach(engine)
    assert_free(engine, units)
