# SPDX-License-Identifier: Apache-2.0
"""A zone on its way: on both sides accounted, throughout limited and protected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.operations.stage import Stage
from tests.unit.fakes import GIB, MIB, FakeUnits, make_world, started
from zoned.engine.admission import capacities
from zoned.engine.migration import whole
from zoned.errors import (
    BadList,
    InPolicy,
    KernelRefused,
    NoCapacity,
    NoSuchZone,
    UnknownNode,
    UsageError,
    ZonedError,
)
from zoned.kernel.node import read_topology
from zoned.model.alert import AlertCode
from zoned.model.job import JobKind
from zoned.model.policy import Policy
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.engine import Engine

MOVE = JobKind.MOVE


@pytest.fixture(autouse=True)
def zones(stage: Stage) -> None:
    """Make a zone on node 0 with two members."""
    stage.engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    for pid in (7, 8):
        stage.world.add_process(pid, "/zone/db")
    stage.steps.clear()
    stage.limits.clear()


def reserved(engine: Engine) -> list[int]:
    """Return how many GiB are reserved on each node."""
    machine = engine.machine
    zones = machine.store.zones.values()
    found = capacities(read_topology(machine.root), machine.policy.reserve, zones)
    return [each.reserved // GIB for each in found.values()]


def alerts(engine: Engine) -> list[AlertCode]:
    engine.tick()
    return [alert.code for alert in engine.alerts]


def test_widen_move_narrow(stage: Stage) -> None:
    seen: list[list[int]] = []
    stage.on_move = lambda _: seen.append(reserved(stage.engine))
    stage.begin(MOVE, name="db", nodes="1")
    assert stage.steps == ["db has 0-1", "7 moves to 1", "8 moves to 1", "db has 1"]
    assert seen == [[1, 1], [1, 1]]
    zone = stage.engine.machine.store.zones["db"]
    assert (zone.shares, zone.leaving, zone.spec.nodes) == ({1: GIB}, {}, "1")
    assert zone.cpus == frozenset({2, 3})
    assert reserved(stage.engine) == [0, 1]
    assert not alerts(stage.engine)


def test_limits_and_protection_never_change(stage: Stage) -> None:
    before = stage.world.groups.made["db"].limits
    stage.begin(MOVE, name="db", nodes="1")
    assert [each.cpus for each in stage.limits] == [
        frozenset({0, 1, 2, 3}),
        frozenset({2, 3}),
    ]
    assert {replace(each, mems=None, cpus=None) for each in stage.limits} == {
        replace(before, mems=None, cpus=None)
    }
    assert not stage.world.groups.broken_promises


def test_nodes_that_it_keeps_are_not_counted_twice(stage: Stage) -> None:
    seen: list[object] = []
    stage.engine.create(ZoneSpec(name="wide", size=2 * GIB, nodes="0-1"))
    stage.world.add_process(9, "/zone/wide")
    stage.on_move = lambda _: seen.append((reserved(stage.engine), stage.leaving("wide")))
    stage.begin(MOVE, name="wide", nodes="1")
    assert seen == [([2, 2], {0: GIB})]
    assert reserved(stage.engine) == [1, 2]


@pytest.mark.parametrize(
    ("name", "nodes", "error"),
    [
        ("db", "0", UsageError),
        ("db", "7", UnknownNode),
        ("db", "", BadList),
        ("ghost", "1", NoSuchZone),
        ("full", "0", NoCapacity),
        ("policy", "1", InPolicy),
    ],
)
def test_moves_that_are_refused(
    tmp_path: Path, name: str, nodes: str, error: type[ZonedError]
) -> None:
    spec = ZoneSpec(name="policy", size=MIB, nodes="0")
    engine = started(make_world(tmp_path / "other"), Policy(zones=(spec,)))
    engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    engine.create(ZoneSpec(name="full", size=3 * GIB, nodes="1"))
    before = engine.machine.store.zones
    with pytest.raises(error):
        engine.prepare(MOVE, {"name": name, "nodes": nodes})
    assert engine.machine.store.zones == before


@pytest.mark.parametrize("how", ["cancelled", "failed"])
@pytest.mark.parametrize(("nodes", "steps"), [("1", ["db has 1"]), ("0", ["db has 0"])])
def test_ended_half_way_it_goes_on_or_back(
    stage: Stage, how: str, nodes: str, steps: list[str]
) -> None:
    stage.stopped(how, MOVE, name="db", nodes="1")
    assert stage.steps == ["db has 0-1", "7 moves to 1"]
    assert (stage.leaving(), stage.mems(), reserved(stage.engine)) == ({0: GIB}, [0, 1], [1, 1])
    assert alerts(stage.engine) == [AlertCode.HALF_MOVED]
    assert (stage.leaving(), stage.mems()) == ({0: GIB}, [0, 1])
    with pytest.raises(NoCapacity):
        stage.engine.create(ZoneSpec(name="big", size=7 * GIB // 2, nodes="0"))
    stage.steps.clear()
    stage.begin(MOVE, name="db", nodes=nodes)
    assert [step for step in stage.steps if "has" in step][-1:] == steps
    assert f"7 moves to {nodes}" in stage.steps
    assert stage.leaving() == {}
    assert not alerts(stage.engine)
    zone = stage.engine.machine.store.zones["db"]
    assert (zone.shares, zone.cpus) == (
        {int(nodes): GIB},
        frozenset({2, 3} if nodes == "1" else {0, 1}),
    )


def test_the_next_daemon_finishes_it(stage: Stage) -> None:
    request = stage.stopped("suspended", MOVE, name="db", nodes="1")
    assert (stage.leaving(), stage.mems()) == ({0: GIB}, [0, 1])
    stage.take_up(request)
    assert stage.steps == ["7 moves to 1", "8 moves to 1", "db has 1"]
    assert stage.leaving() == {}
    assert not alerts(stage.engine)


def test_a_zone_that_cannot_be_widened_stays_where_it_is(stage: Stage) -> None:
    before = stage.engine.machine.store.zones["db"]
    stage.world.groups.failures.at("change", KernelRefused("no"))
    with pytest.raises(KernelRefused):
        stage.begin(MOVE, name="db", nodes="1")
    assert stage.engine.machine.store.zones["db"] == before
    assert stage.mems() == [0]
    assert not alerts(stage.engine)


def test_what_is_lent_to_a_half_moved_zone_goes_back_alone(stage: Stage) -> None:
    """Its old nodes stay, with what is accounted there."""
    stage.stopped("cancelled", MOVE, name="db", nodes="1")
    stage.world.add_process(20, "/x", mems="0")
    stage.begin(JobKind.ATTACH, name="db", pid=20)
    assert stage.leaving() == {0: GIB}
    assert stage.mems() == [0, 1]
    assert stage.world.groups.pids("db") == (7, 8, 20)


def test_file_cache_that_stays_is_told_of(stage: Stage) -> None:
    stage.world.groups.made["db"].by_node = {0: 3 * MIB, 1: 9 * MIB}
    stage.begin(MOVE, name="db", nodes="1")
    (note,) = [each for each in stage.control.progress.notes if "elsewhere" in each]
    assert "3MiB on node 0;" in note
    stage.world.groups.made["db"].by_node = {0: 9 * MIB, 1: MIB}
    stage.begin(MOVE, name="db", nodes="0")
    assert not [each for each in stage.control.progress.notes if "elsewhere" in each]


def test_attached_units_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = FakeUnits({"x.service": "/system/x"})
    world = make_world(tmp_path / "units", units=units)
    stage = Stage(world=world, engine=started(world))
    stage.engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    world.add_process(9, "/system/x")
    seen: list[tuple[int, frozenset[int]]] = []

    def moved(_: object, pid: int, *__: object) -> int:
        seen.append((pid, units.nodes["x.service"]))
        return 0

    stage.begin(JobKind.ATTACH, name="db", unit="x")
    monkeypatch.setattr(whole, "move_all_pages", moved)
    stage.begin(MOVE, name="db", nodes="1")
    assert seen == [(9, frozenset({0, 1}))]
    assert units.nodes["x.service"] == {1}
