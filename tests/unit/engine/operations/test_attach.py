# SPDX-License-Identifier: Apache-2.0
"""Pages first, then the cgroup; where the cpuset forbids that, the zone is widened meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.operations.stage import STOPS, Stage
from tests.unit.fakes import GIB, FakeUnits, make_world, started
from zoned.engine.operations import unit as unit_module
from zoned.errors import KernelRefused, NoRoom
from zoned.model.job import JobKind
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.transfer import Transfer

ATTACH, DETACH = JobKind.ATTACH, JobKind.DETACH


@pytest.fixture(autouse=True)
def zones(stage: Stage) -> None:
    """Make a zone on node 0, and processes with a cpuset of node 1 and without."""
    stage.engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    stage.world.add_process(7, "/on1", mems="1")
    stage.world.add_process(8, "/on1", mems="1")
    stage.world.add_process(9, "/free", mems="0-1")
    stage.steps.clear()
    stage.limits.clear()


def test_one_that_may_use_the_nodes_moves_before_it_enters(stage: Stage) -> None:
    stage.begin(ATTACH, name="db", pid=9)
    assert stage.steps == ["9 moves to 0", "9 enters db"]


def test_one_that_may_not_enters_a_wider_zone_first(stage: Stage) -> None:
    stage.begin(ATTACH, name="db", pid=7)
    assert stage.steps == ["db has 0-1", "7 enters db", "7 moves to 0", "db has 0"]
    assert stage.leaving() == {}
    # Wider, and nothing else: it is protected and limited throughout.
    assert len({replace(each, mems=None) for each in stage.limits}) == 1


def test_a_cgroup_of_both(stage: Stage) -> None:
    stage.world.add_process(10, "/on1/below", mems="0-1")
    stage.begin(ATTACH, name="db", cgroup="/on1")
    assert stage.steps[:3] == ["db has 0-1", "7 enters db", "8 enters db"]
    assert sorted(stage.steps[3:-2]) == ["10 moves to 0", "7 moves to 0", "8 moves to 0"]
    assert stage.steps[-2:] == ["10 enters db", "db has 0"]


def test_nodes_that_the_machine_does_not_have_are_not_lent(stage: Stage) -> None:
    stage.world.add_process(10, mems="1-7")
    stage.begin(ATTACH, name="db", pid=10)
    assert stage.steps[0] == "db has 0-1"


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_ended_half_way_it_is_narrow_again(stage: Stage, how: str) -> None:
    stage.stopped(how, ATTACH, name="db", cgroup="/on1")
    assert stage.steps[-1] == "db has 0"
    assert stage.leaving() == {}
    assert stage.mems() == [0]
    # They had to enter before a page moved, so they are members, of which all is known.
    assert stage.world.groups.pids("db") == (7, 8)
    assert len(stage.engine.machine.ledger.touched.members) == 2


def test_cancelled_before_its_turn_a_process_stays_where_it_was(stage: Stage) -> None:
    stage.world.add_process(10, "/free", mems="0-1")
    stage.stopped("cancelled", ATTACH, name="db", cgroup="/free")
    assert stage.world.groups.where[9] == stage.world.groups.where[10] == "/free"


@pytest.mark.parametrize("how", STOPS)
def test_stopped_when_its_pages_have_moved_it_does_not_enter(stage: Stage, how: str) -> None:
    stage.stopped(how, ATTACH, name="db", pid=9)
    assert stage.world.groups.where[9] == "/free"


def test_where_the_daemon_stops_it_stays_wide_and_goes_on_later(stage: Stage) -> None:
    request = stage.stopped("suspended", ATTACH, name="db", cgroup="/on1")
    assert (stage.leaving(), stage.mems()) == ({1: 0}, [0, 1])
    assert not started(stage.world).alerts
    stage.take_up(request)
    assert stage.steps[-1] == "db has 0"
    assert (stage.leaving(), stage.mems()) == ({}, [0])
    assert stage.world.groups.pids("db") == (7, 8)


def test_what_no_job_takes_back_the_next_look_does(stage: Stage) -> None:
    stage.stopped("suspended", ATTACH, name="db", cgroup="/on1")
    stage.engine.tick()
    assert (stage.leaving(), stage.mems()) == ({}, [0])


def test_without_room_nothing_is_begun(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Machine, wanted: Transfer) -> None:
        assert (wanted.targets, wanted.own) == ({0: GIB}, ("db",))
        raise NoRoom("full")

    monkeypatch.setattr("zoned.engine.operations.attach.refuse_if_full", full)
    with pytest.raises(NoRoom):
        stage.begin(ATTACH, name="db", pid=7)
    assert not stage.steps
    assert stage.leaving() == {}
    assert stage.world.groups.where[7] == "/on1"


def test_a_zone_that_cannot_be_widened_is_not_entered(stage: Stage) -> None:
    stage.world.groups.failures.at("change", KernelRefused("no"))
    with pytest.raises(KernelRefused):
        stage.begin(ATTACH, name="db", pid=7)
    assert stage.world.groups.where[7] == "/on1"
    stage.engine.tick()
    assert (stage.leaving(), stage.mems()) == ({}, [0])


def test_detached_to_a_cpuset_without_the_zones_nodes_its_pages_move_first(stage: Stage) -> None:
    stage.begin(ATTACH, name="db", pid=7)
    stage.steps.clear()
    stage.begin(DETACH, name="db", pid=7)
    assert stage.steps == ["db has 0-1", "7 moves to 1", "7 back to /on1", "db has 0"]
    assert not stage.engine.machine.ledger.touched.members


@pytest.mark.parametrize("mems", ["0-1", "0", "7", None])
def test_detached_to_where_it_may_use_the_zones_nodes_its_pages_stay(
    stage: Stage, mems: str | None
) -> None:
    """Or to a cpuset whose nodes are gone, or of which nothing is known."""
    stage.world.add_process(10, "/other", mems=mems)
    stage.begin(ATTACH, name="db", pid=10)
    stage.steps.clear()
    stage.begin(DETACH, name="db", pid=10)
    assert stage.steps == ["10 back to /other"]


@pytest.mark.parametrize("how", STOPS)
def test_a_detach_that_ends_half_way_keeps_the_member(stage: Stage, how: str) -> None:
    for pid in (7, 8):
        stage.begin(ATTACH, name="db", pid=pid)
    request = stage.stopped(how, DETACH, name="db", cgroup="/on1")
    assert stage.world.groups.pids("db") == (7, 8)
    assert len(stage.engine.machine.ledger.touched.members) == 2
    assert stage.leaving() == ({1: 0} if how == "suspended" else {})
    stage.take_up(request)
    assert not stage.world.groups.pids("db")
    assert (stage.leaving(), stage.mems()) == ({}, [0])
    assert not stage.engine.machine.ledger.touched.members


@pytest.mark.parametrize(
    ("former", "attached", "during"),
    [({1}, False, {0, 1}), ({0, 1}, False, {0, 1}), (set(), False, set()), ({1}, True, {0})],
)
@pytest.mark.parametrize("how", STOPS)
def test_a_unit_whose_attach_ends_half_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    former: set[int],
    during: set[int],
    how: str,
    *,
    attached: bool,
) -> None:
    """It is as it was before: confined by its owner, by nobody, or by its zone."""
    units = FakeUnits({"x.service": "/system/x"})
    units.nodes["x.service"] = frozenset(former)
    world = make_world(tmp_path / "units", units=units)
    engine = started(world)
    stage = Stage(world=world, engine=engine)
    engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    if attached:
        stage.begin(ATTACH, name="db", unit="x")
    before = (units.nodes["x.service"], dict(units.placed), engine.machine.store.zones["db"].units)

    def stop(_: Machine, control: JobControl, __: Transfer) -> None:
        assert units.nodes["x.service"] == during
        stage.on_move(0)
        control.checkpoint()

    monkeypatch.setattr(unit_module, "transfer", stop)
    request = stage.stopped(how, ATTACH, name="db", unit="x")
    if how != "suspended":
        zone = engine.machine.store.zones["db"]
        assert (units.nodes["x.service"], units.placed, zone.units) == before
        assert bool(engine.machine.ledger.touched.units) is attached
    stage.take_up(request)
    assert units.nodes["x.service"] == {0}
    assert units.placed == {"x.service": "db"}
    stage.begin(DETACH, name="db", unit="x")
    assert units.nodes["x.service"] == former
