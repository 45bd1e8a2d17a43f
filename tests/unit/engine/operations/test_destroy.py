# SPDX-License-Identifier: Apache-2.0
"""Draining: every member and its pages out, then the zone goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.operations.stage import STOPS, Stage
from tests.unit.fakes import GIB
from zoned.errors import HasMembers, KernelRefused, UsageError
from zoned.model.job import JobKind
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME = {7: "/on1", 8: "/on1", 9: "/free"}
ATTACH, DESTROY = JobKind.ATTACH, JobKind.DESTROY


@pytest.fixture(autouse=True)
def zones(stage: Stage) -> None:
    """Make a zone on each node; one has members from a cpuset of node 1 and one from all nodes."""
    stage.engine.create(ZoneSpec(name="db", size=GIB, nodes="0"))
    stage.engine.create(ZoneSpec(name="web", size=GIB, nodes="1"))
    stage.world.add_process(7, "/on1", mems="1")
    stage.world.add_process(8, "/on1", mems="1")
    stage.world.add_process(9, "/free", mems="0-1")
    stage.begin(ATTACH, name="db", cgroup="/on1")
    stage.begin(ATTACH, name="db", cgroup="/free")
    # What the kernel shows of a member is the zone's.
    for pid in (7, 8, 9):
        stage.world.add_process(pid, "/zone/db", mems="0")
    stage.steps.clear()


def test_to_root_each_goes_where_it_may_be(stage: Stage) -> None:
    stage.begin(DESTROY, name="db", drain="root")
    assert stage.world.groups.where == HOME
    assert "9 moves to 0-1" not in stage.steps
    about_7 = [step for step in stage.steps if not step.startswith("9")]
    assert about_7 == [
        "db has 0-1",
        "7 moves to 1",
        "8 moves to 1",
        "7-8 back to /on1",
        "db has 0",
        "db goes",
    ]
    assert not stage.engine.machine.ledger.touched.members
    assert stage.engine.machine.store.zones.keys() == {"web"}


def test_to_another_zone(stage: Stage) -> None:
    request = stage.begin(DESTROY, name="db", drain="web")
    assert request.zones == ("db", "web")
    assert stage.steps == [
        "web has 0-1",
        "7 enters web",
        "8 enters web",
        "9 enters web",
        "7 moves to 1",
        "8 moves to 1",
        "9 moves to 1",
        "web has 1",
        "db goes",
    ]
    # They still know where they first came from.
    stage.begin(DESTROY, name="web", drain="root")
    assert stage.world.groups.where == HOME


@pytest.mark.parametrize("how", STOPS)
@pytest.mark.parametrize("target", ["root", "web"])
def test_ended_half_way_nobody_is_lost(stage: Stage, how: str, target: str) -> None:
    request = stage.stopped(how, DESTROY, name="db", drain=target)
    zones = stage.engine.machine.store.zones
    assert zones.keys() == {"db", "web"}
    lent = ({1: 0} if target == "root" else {0: 0}) if how == "suspended" else {}
    assert stage.leaving("db" if target == "root" else "web") == lent
    inside = [pid for zone in zones for pid in stage.world.groups.pids(zone)]
    recorded = [each.pid for each in stage.engine.machine.ledger.touched.members]
    assert sorted(recorded) == sorted(inside)
    stage.take_up(request)
    stage.engine.tick()
    assert stage.engine.machine.store.zones.keys() == {"web"}
    assert stage.leaving("web") == {}
    home = HOME if target == "root" else dict.fromkeys((7, 8, 9), "/zone/web")
    assert stage.world.groups.where == home
    assert not stage.engine.alerts


def test_of_those_that_are_out_nothing_is_kept_where_others_stay(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.world.groups.release

    def release(pids: Sequence[int], former: str | None) -> None:
        if 9 in pids:
            raise KernelRefused("no")
        real(pids, former)

    monkeypatch.setattr(stage.world.groups, "release", release)
    with pytest.raises(KernelRefused):
        stage.begin(DESTROY, name="db", drain="root")
    assert stage.world.groups.where == HOME | {9: "/zone/db"}
    assert [each.pid for each in stage.engine.machine.ledger.touched.members] == [9]


def test_one_that_is_gone_already_is_taken_up_as_done(stage: Stage) -> None:
    request = stage.begin(DESTROY, name="db", drain="root")
    stage.take_up(request)
    assert not stage.steps


@pytest.mark.parametrize(
    ("drain", "kill", "error"),
    [(None, False, HasMembers), ("root", True, UsageError), ("db", False, HasMembers)],
)
def test_what_is_refused_before_there_is_a_job(
    stage: Stage, drain: str | None, error: type[Exception], *, kill: bool
) -> None:
    with pytest.raises(error):
        stage.engine.prepare(DESTROY, {"name": "db", "drain": drain, "kill": kill})
    assert not stage.steps
