# SPDX-License-Identifier: Apache-2.0
"""While a job works on a zone, nobody else changes it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_jobs import LIMIT, at_once, until
from tests.unit.fakes import GIB
from zoned.engine.jobs.book import JobBook
from zoned.engine.jobs.runner import JobRunner
from zoned.errors import ZoneBusy
from zoned.model.job import JobKind
from zoned.model.zone import Origin, ZoneSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.engine.operations.stage import Stage

PREPARED: list[tuple[JobKind, dict[str, Any]]] = [
    (JobKind.ATTACH, {"name": "db", "pid": 9}),
    (JobKind.DETACH, {"name": "db", "pid": 7}),
    (JobKind.MOVE, {"name": "db", "nodes": "0"}),
    (JobKind.DESTROY, {"name": "db", "drain": "root"}),
    (JobKind.DESTROY, {"name": "web", "drain": "db"}),
    (JobKind.MIGRATE, {"zone": "db", "target": "1"}),
]


class Busy:
    """A move of zone db that waits in its middle."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.go = threading.Event()
        self.began = threading.Event()
        stage.on_move = self._wait
        book = JobBook(folder, "boot")
        self.runner = JobRunner(book, stage.engine.bodies(), at_once)
        stage.engine.jobs = self.runner
        request, body = stage.engine.prepare(JobKind.MOVE, {"name": "db", "nodes": "1"})
        self.job = self.runner.start(request, 0, body)
        assert self.began.wait(LIMIT)

    def _wait(self, _: int) -> None:
        self.began.set()
        assert self.go.wait(LIMIT)

    def end(self) -> None:
        self.go.set()
        until(lambda: self.runner.get(self.job.id).state.is_over)


@pytest.fixture
def busy(stage: Stage, tmp_path: Path) -> Iterator[Busy]:
    stage.engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    stage.engine.create(ZoneSpec(name="web", size=GIB, nodes="0"))
    stage.world.add_process(7, "/zone/db")
    stage.world.add_process(9, "/user")
    found = Busy(stage, tmp_path / "jobs")
    yield found
    found.end()


def test_nobody_else_changes_the_zone(stage: Stage, busy: Busy) -> None:
    for kind, parameters in PREPARED:
        with pytest.raises(ZoneBusy, match="job 1 works on zone db"):
            stage.engine.prepare(kind, parameters)
    with pytest.raises(ZoneBusy):
        stage.engine.resize("db", 2 * GIB)
    stage.engine.resize("web", 2 * GIB)
    busy.end()
    for kind, parameters in PREPARED:
        stage.engine.prepare(kind, parameters)
    stage.engine.resize("db", 2 * GIB)


def test_a_zone_on_its_way_is_no_alert(stage: Stage, busy: Busy) -> None:
    stage.engine.tick()
    assert not stage.engine.alerts
    assert stage.mems() == [0, 1]


def test_what_a_job_lent_is_not_taken_back_under_it(stage: Stage, busy: Busy) -> None:
    store = stage.engine.machine.store
    zone = store.zones["db"]
    object.__setattr__(zone, "leaving", {**zone.leaving, 0: 0})
    store.put(zone)
    stage.engine.tick()
    assert stage.leaving() == {0: 0}


def test_a_zone_that_the_policy_dropped_stays_for_the_job(stage: Stage, busy: Busy) -> None:
    store = stage.engine.machine.store
    store.put(replace(store.zones["db"], origin=Origin.FORMER_POLICY))
    stage.world.end_process(7)
    stage.engine.tick()
    assert "db" in store.zones
    busy.end()
    stage.engine.tick()
    assert "db" not in store.zones


def test_a_reset_leaves_the_zone_to_the_job(stage: Stage, busy: Busy) -> None:
    (left,) = stage.engine.reset()
    assert "job 1 works on zone db" in left
    assert list(stage.engine.machine.store.zones) == ["db"]
    busy.end()
    assert stage.engine.reset() == []
