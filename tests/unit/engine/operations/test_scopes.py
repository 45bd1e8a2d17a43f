# SPDX-License-Identifier: Apache-2.0
"""Whose pages are to move, also when programs fork and end meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from tests.unit.fakes import GIB, make_world, started
from zoned.engine.operations.scopes import Family, Listed, living
from zoned.errors import BadInput, NoSuchCgroup, NoSuchProcess, UnknownNode, Unsupported, UsageError
from zoned.kernel.process import find
from zoned.kernel.root import sysroot
from zoned.model.job import JobKind
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.engine.operations.stage import Stage
    from tests.unit.fakes import World
    from zoned.engine.migration.plan import Scope


def pids(scope: Scope) -> list[int]:
    return sorted(process.pid for process in scope.processes())


def test_the_living_are_no_threads_of_the_kernel(world: World) -> None:
    world.add_process(7)
    world.add_process(8, ppid=2)
    assert [each.pid for each in living(sysroot(world.folder), [7, 8, 9])] == [7]


def test_a_family_is_who_was_forked_after_the_first_look(world: World) -> None:
    world.add_process(7)
    world.add_process(70, ppid=7)
    root = sysroot(world.folder)
    family = Family(root, find(root, 7))
    assert pids(family) == [7]
    world.add_process(71, ppid=7)
    world.add_process(72, ppid=71)
    world.add_process(73, ppid=70)
    assert pids(family) == [7, 71, 72]
    world.end_process(7)
    world.add_process(74, ppid=72)
    assert pids(family) == [71, 72, 74]


def test_a_pid_that_is_used_again_is_no_member_of_the_family(world: World) -> None:
    world.add_process(7)
    root = sysroot(world.folder)
    family = Family(root, find(root, 7))
    family.processes()
    world.add_process(7, start=500)
    assert pids(family) == []


def test_what_was_listed_once_stays_in_sight(world: World) -> None:
    for pid in (7, 8):
        world.add_process(pid)
    lists = iter([[7], [8], []])
    scope = Listed(sysroot(world.folder), lambda: next(lists))
    assert pids(scope) == [7]
    assert pids(scope) == [7, 8]
    world.end_process(7)
    assert pids(scope) == [8]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"pid": 7, "target": "0", "source": "0"}, UsageError),
        ({"pid": 7, "target": "0", "source": "0-1"}, None),
        ({"pid": 7, "target": "9"}, UnknownNode),
        ({"pid": 7, "target": ""}, BadInput),
        ({"pid": 7, "target": None}, BadInput),
        ({"pid": 99, "target": "0"}, NoSuchProcess),
        ({"cgroup": "/no-such", "target": "0"}, NoSuchCgroup),
        ({"zone": "ghost", "target": "0"}, BadInput),
        ({"target": "0"}, UsageError),
        ({"pid": 7, "zone": "db", "target": "0"}, UsageError),
        ({"pid": 7, "target": "0", "stall": 0}, BadInput),
    ],
)
def test_what_a_migration_is_asked(
    tmp_path: Path, parameters: dict[str, object], error: type[Exception] | None
) -> None:
    world = make_world(tmp_path / "other")
    engine = started(world)
    world.add_process(7)
    if error is None:
        request, _ = engine.prepare(JobKind.MIGRATE, parameters)
        assert request.what == "migrate pid 7 from node 0-1 to node 0"
        return
    with pytest.raises(error):
        engine.prepare(JobKind.MIGRATE, parameters)


def test_who_is_migrated(stage: Stage) -> None:
    stage.engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    stage.world.add_process(7, "/zone/db")
    stage.world.add_process(8, "/user/x")
    for who, moves in (
        ({"zone": "db"}, ["7 moves to 1"]),
        ({"cgroup": "/user"}, ["8 moves to 1"]),
        ({"pid": 8}, ["8 moves to 1"]),
    ):
        stage.steps.clear()
        stage.begin(JobKind.MIGRATE, **who, target="1")
        assert stage.steps == moves
    with pytest.raises(Unsupported, match="no systemd"):
        stage.begin(JobKind.MIGRATE, unit="x", target="1")


def test_a_request_means_the_process_that_had_the_number_then(stage: Stage) -> None:
    stage.world.add_process(8, "/user/x")
    request, _ = stage.engine.prepare(JobKind.MIGRATE, {"pid": 8, "target": "1"})
    stage.take_up(request)
    assert stage.steps == ["8 moves to 1"]
    parameters = {**request.parameters, "start_time": request.parameters["start_time"] - 1}
    with pytest.raises(NoSuchProcess, match="has ended"):
        stage.take_up(replace(request, parameters=parameters))


@pytest.mark.parametrize("on", [False, True])
def test_who_else_moves_pages_is_told(stage: Stage, *, on: bool) -> None:
    write(stage.world.folder, {"proc/sys/kernel/numa_balancing": str(int(on))})
    stage.world.add_process(8, "/user/x")
    stage.begin(JobKind.MIGRATE, pid=8, target="1")
    assert any("NUMA balancing" in note for note in stage.control.progress.notes) is on
