# SPDX-License-Identifier: Apache-2.0
"""Zones that have their nodes for themselves: where they go, what they refuse, what is fenced."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.fence.fakes import FakeFence, outsider
from tests.unit.fake_sys import MEMORY, NODES, write
from tests.unit.fakes import GIB, FakeUnits, World, make_world, run_job, started
from zoned.engine.fence.keep import fenced_nodes
from zoned.engine.migration import whole
from zoned.engine.operations import clear, create
from zoned.errors import FenceImpossible, MovableOnly, NodeTaken, Unsupported
from zoned.kernel.cgroup.fence import Loose
from zoned.kernel.process import Process
from zoned.model.job import JobKind
from zoned.model.policy import Policy, SystemReserve
from zoned.model.zone import Backing, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.engine import Engine
    from zoned.engine.operations.transfer import Transfer
    from zoned.model.job import Progress

POLICY = Policy(reserve=SystemReserve(default=0))


def spec(nodes: str | None = None, size: int = GIB, **more: str) -> ZoneSpec:
    return ZoneSpec(name="hpc", size=size, nodes=nodes, backing=Backing.NODE, **more)  # type: ignore[arg-type]  # only text


@pytest.fixture
def fence() -> FakeFence:
    return FakeFence().add(outsider("system.slice"), outsider("user.slice"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    units = FakeUnits({"x.service": "/system/x"})
    (tmp_path / "proc").mkdir(exist_ok=True)
    return make_world(tmp_path, dict.fromkeys(range(3), 4 * GIB), units=units)


@pytest.fixture
def engine(world: World, fence: FakeFence, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = started(world, POLICY)
    engine.machine.fence = fence
    monkeypatch.setattr(clear, "transfer", lambda *_: None)
    return engine


def make(engine: Engine, zone: ZoneSpec) -> Progress:
    return run_job(engine, JobKind.CREATE, spec=zone)


def test_others_are_kept_off_for_as_long_as_the_zone_is_there(
    engine: Engine, fence: FakeFence
) -> None:
    make(engine, spec("2"))
    assert {each.effective for each in fence.groups.values()} == {frozenset({0, 1})}
    assert not engine.alerts
    run_job(engine, JobKind.DESTROY, name="hpc")
    assert {each.effective for each in fence.groups.values()} == {frozenset({0, 1, 2})}
    assert not engine.machine.ledger.touched.fence


@pytest.mark.parametrize(("mems", "lent"), [("1", {1: 0}), ("0-1", {0: 0, 1: 0})])
def test_nobody_is_kept_off_what_the_zone_is_only_lent(
    world: World,
    engine: Engine,
    fence: FakeFence,
    monkeypatch: pytest.MonkeyPatch,
    mems: str,
    lent: dict[int, int],
) -> None:
    make(engine, spec("2"))
    world.add_process(7, "/elsewhere", mems=mems)
    late = ZoneSpec(name="late", size=GIB, nodes="1")
    seen: list[frozenset[int]] = []

    def moved(*_: object) -> int:
        engine.create(late)
        assert engine.machine.store.zones["hpc"].leaving == lent
        assert not engine.alerts
        seen.extend(each.effective or frozenset() for each in fence.groups.values())
        return 0

    monkeypatch.setattr(whole, "move_all_pages", moved)
    run_job(engine, JobKind.ATTACH, name="hpc", pid=7)
    assert set(seen) == {frozenset({0, 1})}


def test_what_the_zone_has_until_its_pages_are_gone_is_its_own(engine: Engine) -> None:
    make(engine, spec("2"))
    zone = engine.machine.store.zones["hpc"]
    engine.machine.store.put(replace(zone, leaving={1: GIB, 0: 0}))
    assert fenced_nodes(engine.machine) == {1, 2}


def test_without_a_list_the_last_nodes_are_taken(engine: Engine) -> None:
    make(engine, spec(size=6 * GIB))
    assert engine.machine.store.zones["hpc"].shares == {1: 3 * GIB, 2: 3 * GIB}


def test_near_something_the_nearest_free_ones_are(engine: Engine) -> None:
    engine.create(ZoneSpec(name="db", size=GIB, nodes="1"))
    make(engine, spec(near="node:1", size=5 * GIB))
    assert set(engine.machine.store.zones["hpc"].shares) == {0, 2}


def test_nodes_with_movable_memory_alone_are_taken_last_and_never_alone(
    engine: Engine, tmp_path: Path
) -> None:
    write(tmp_path, {f"{NODES}/has_normal_memory": "0-1"})
    with pytest.raises(MovableOnly, match="node 2 has only movable memory"):
        make(engine, spec("2"))
    with pytest.raises(NodeTaken, match="everybody else"):
        make(engine, spec("0-1"))
    make(engine, spec())
    assert engine.machine.store.zones["hpc"].shares == {1: GIB}
    run_job(engine, JobKind.DESTROY, name="hpc")
    make(engine, spec("1-2"))
    assert engine.machine.store.zones["hpc"].shares == {1: GIB // 2, 2: GIB // 2}


def test_nodes_are_shared_with_no_zone_before_or_after(engine: Engine, tmp_path: Path) -> None:
    engine.create(ZoneSpec(name="db", size=GIB, nodes="2", backing=Backing.LIMIT))
    with pytest.raises(NodeTaken, match="node 2: db"):
        make(engine, spec("1-2"))
    make(engine, spec("1"))
    for backing in (Backing.LIMIT, Backing.RESERVE, Backing.NODE):
        late = ZoneSpec(name="late", size=GIB, nodes="1", backing=backing)
        with pytest.raises(NodeTaken, match="hpc"):
            make(engine, late)
    write(tmp_path, {f"{MEMORY}/block_size_bytes": "1"})
    with pytest.raises(NodeTaken, match="belongs to zone hpc"):
        run_job(engine, JobKind.PARK, node=1, size=1)


def test_who_says_no_nodes_is_placed_elsewhere(engine: Engine) -> None:
    make(engine, spec("0-1"))
    engine.create(ZoneSpec(name="db", size=GIB))
    assert engine.machine.store.zones["db"].nodes == {2}


def test_where_no_node_is_free_that_is_said(engine: Engine) -> None:
    engine.create(ZoneSpec(name="db", size=3 * GIB, nodes="all"))
    with pytest.raises(NodeTaken, match="other zones are on all of them"):
        make(engine, spec())


def test_somebody_needs_a_node_too(engine: Engine, fence: FakeFence) -> None:
    with pytest.raises(NodeTaken, match="everybody else"):
        make(engine, spec("all"))
    fence.add(outsider("small.slice", 2))
    with pytest.raises(FenceImpossible, match=r"small\.slice"):
        make(engine, spec("2"))
    assert not engine.machine.store.zones


def test_without_anything_to_fence_with_there_is_none(engine: Engine) -> None:
    engine.machine.fence = None
    with pytest.raises(Unsupported):
        make(engine, spec("2"))


def test_what_others_have_moves_first_and_not_to_nodes_that_are_fenced(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[Transfer] = []
    monkeypatch.setattr(clear, "transfer", lambda _, __, wanted: moved.append(wanted))
    make(engine, spec("2"))
    other = ZoneSpec(name="other", size=GIB, nodes="1", backing=Backing.NODE)
    make(engine, other)
    assert [(set(each.targets), set(each.sources or ())) for each in moved] == [
        ({0, 1}, {2}),
        ({0}, {1}),
    ]


def test_a_unit_cannot_be_attached_where_its_slice_is_kept_off(engine: Engine) -> None:
    make(engine, spec("2"))
    with pytest.raises(Unsupported, match="kept off the nodes"):
        run_job(engine, JobKind.ATTACH, name="hpc", unit="x.service")


def test_the_job_tells_what_the_kernel_has_there(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(create, "tell_of_others", lambda _, __, zone: notes.append(zone.name))
    make(engine, spec("2"))
    assert notes == ["hpc"]


@pytest.mark.parametrize(
    ("processes", "threads", "told"),
    [
        (0, 90, "nobody can keep 90 threads of the kernel and 0 processes"),
        (2, 90, "nobody can keep 90 threads of the kernel and 2 processes"),
        (0, 0, None),
    ],
)
def test_the_job_tells_who_cannot_be_kept_off(
    engine: Engine, fence: FakeFence, processes: int, threads: int, told: str | None
) -> None:
    one = Process(pid=7, start_time=1, name="sh", uid=0, ppid=1)
    fence.loose_ones = Loose(processes=(one,) * processes, kernel_threads=threads)
    job = make(engine, spec("2"))
    said = [note for note in job.notes if "nobody can keep" in note]
    assert said == ([f"{told}, all in the root group, off node 2"] if told else [])
