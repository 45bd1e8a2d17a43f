# SPDX-License-Identifier: Apache-2.0
"""The daemon killed at any point of a job on memory blocks: what the next one makes of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import control_of
from zoned.engine.blocks.observe import needs_of
from zoned.model.block import PARKED
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

from tests.unit.engine.blocks.stage import NORMAL, Killed, Stage, make_stage, spec

_MOST = 300
_LEAST = 5
"""Points at which a job can be killed"""


def create(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
    return JobKind.CREATE, {"spec": spec(3)}


def create_from_pool(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
    stage.run(JobKind.PARK, node=1, size=2 * BLOCK)
    return JobKind.CREATE, {"spec": spec(3)}


def grow(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
    stage.create(1)
    return JobKind.RESIZE, {"name": "db", "size": 3 * BLOCK}


def shrink(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
    stage.create(3)
    return JobKind.RESIZE, {"name": "db", "size": BLOCK}


def destroy(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
    stage.create(3)
    return JobKind.DESTROY, {"name": "db"}


def park(_: Stage) -> tuple[JobKind, dict[str, Any]]:
    return JobKind.PARK, {"node": 1, "size": 2 * BLOCK}


def unpark(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
    stage.run(JobKind.PARK, node=1, size=3 * BLOCK)
    return JobKind.UNPARK, {"node": 1, "size": 2 * BLOCK}


SCENARIOS = (create, create_from_pool, grow, shrink, destroy, park, unpark)


def check(stage: Stage) -> None:
    """Assert that every block is where the zones, the pool and the ledger say."""
    machine = stage.engine.machine
    needs = needs_of(machine)
    assert (needs.short, needs.back) == ({}, ())
    wanted = dict.fromkeys(stage.of("zone:db"), "Movable")
    wanted |= dict.fromkeys(stage.of(PARKED), "-")
    assert set(machine.ledger.touched.blocks) == set(wanted)
    assert stage.kinds == NORMAL | wanted


def killed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[Stage], tuple[JobKind, dict[str, Any]]],
) -> Iterator[tuple[Stage, Callable[[], None]]]:
    """Kill the daemon at each point of a job, until the job comes through.

    Yields what the next daemon finds, and what takes the job up again.
    """
    for point in range(_MOST):
        with monkeypatch.context() as patch:
            stage = make_stage(folder / str(point), patch)
            kind, parameters = begin(stage)
            request, body = stage.engine.prepare(kind, parameters)
            stage.left = point
            came_through = True
            try:
                body(control_of())
            except Killed:
                came_through = False
            engine = stage.restart()
            yield stage, partial(engine.bodies()[kind](request), control_of())
            if came_through:
                assert point > _LEAST
                return
    pytest.fail("it never came through")


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "forgotten"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_all_is_where_it_belongs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Callable[[Stage], tuple[JobKind, dict[str, Any]]],
    *,
    resumed: bool,
) -> None:
    for stage, resume in killed(tmp_path, monkeypatch, scenario):
        assert "-" not in {
            each for number, each in stage.kinds.items() if number not in stage.of(PARKED)
        }, "nothing is left offline"
        if resumed:
            resume()
        for name in needs_of(stage.engine.machine).short:
            stage.run(JobKind.FILL, name=name)
        stage.run(JobKind.GIVE_BACK)
        check(stage)


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "forgotten"])
@pytest.mark.parametrize("former", ["Normal", "Movable"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "best"])
def test_no_more_is_parked_than_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, former: str, *, named: bool, resumed: bool
) -> None:
    asked = {"blocks": "14-15"} if named else {"node": 1, "size": 2 * BLOCK}

    def begin(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
        stage.memory.remove(14, 15)
        stage.memory.add(1, 14, 15, zone=former)
        return JobKind.OFFLINE if named else JobKind.PARK, asked

    found = NORMAL | dict.fromkeys((14, 15), former)
    for stage, resume in killed(tmp_path, monkeypatch, begin):
        if resumed:
            resume()
        assert stage.of(PARKED) in ([[14, 15]] if resumed else [[], [14, 15]])
        stage.run(JobKind.GIVE_BACK)
        assert stage.kinds == found | dict.fromkeys(stage.of(PARKED), "-")
        if stage.of(PARKED):
            stage.run(JobKind.UNPARK, node=1)
        assert stage.kinds == found


def test_no_block_counts_that_was_never_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(stage: Stage) -> tuple[JobKind, dict[str, Any]]:
        stage.memory.remove(13, 14, 15)
        stage.memory.add(1, 13, 14, 15, zone="Movable")
        return create(stage)

    for stage, resume in killed(tmp_path, monkeypatch, begin):
        resume()
        assert stage.of("zone:db") == [13, 14, 15]
        assert {"13 offline", "14 offline", "15 offline"} <= {*stage.memory.done}
