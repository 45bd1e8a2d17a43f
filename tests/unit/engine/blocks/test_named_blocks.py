# SPDX-License-Identifier: Apache-2.0
"""Memory blocks that somebody names are parked and brought back, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.blocks.stage import NORMAL
from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import control_of
from zoned.engine.jobs.control import Suspended
from zoned.errors import BadList, BlockBusy, NoCapacity, TooFewBlocks, WrongBlock
from zoned.model.block import PARKED
from zoned.model.job import JobKind
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from tests.unit.engine.blocks.stage import Stage


def test_the_named_ones_go_and_come_back(stage: Stage) -> None:
    stage.run(JobKind.OFFLINE, blocks="9,11-12")
    assert stage.of(PARKED) == [9, 11, 12]
    assert stage.kinds == NORMAL | {9: "-", 11: "-", 12: "-"}
    stage.run(JobKind.ONLINE, blocks="11")
    assert stage.of(PARKED) == [9, 12]
    stage.run(JobKind.ONLINE, blocks="9,12")
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks


def test_parked_ones_are_taken_by_zones(stage: Stage) -> None:
    stage.run(JobKind.OFFLINE, blocks="9")
    stage.create(1)
    assert stage.of("zone:db") == [9]
    with pytest.raises(WrongBlock, match="block 9 is not parked"):
        stage.run(JobKind.ONLINE, blocks="9")
    with pytest.raises(WrongBlock, match="block 9 is held already: zone:db"):
        stage.run(JobKind.OFFLINE, blocks="9")


def test_no_other_goes_instead(stage: Stage) -> None:
    stage.memory.busy[11] = [BlockBusy("no")] * 2
    with pytest.raises(TooFewBlocks, match="gave 1 of 2"):
        stage.run(JobKind.OFFLINE, blocks="9,11")
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks


@pytest.mark.parametrize(
    ("blocks", "error", "told"),
    [
        ("99", WrongBlock, "no memory block 99"),
        ("9-99", WrongBlock, "no memory block 16"),
        ("", WrongBlock, "no memory block is named"),
        ("x", BadList, "x"),
        ("3", TooFewBlocks, "low memory, which devices need"),
    ],
)
def test_nonsense_changes_nothing(
    stage: Stage, blocks: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        stage.run(JobKind.OFFLINE, blocks=blocks)
    assert not stage.memory.done


def test_only_parked_ones_come_back(stage: Stage) -> None:
    with pytest.raises(WrongBlock, match="block 9 is not parked"):
        stage.run(JobKind.ONLINE, blocks="9")
    with pytest.raises(WrongBlock, match="no memory block 99"):
        stage.run(JobKind.ONLINE, blocks="99")


def test_what_is_offline_already_is_refused(stage: Stage) -> None:
    stage.run(JobKind.OFFLINE, blocks="9")
    with pytest.raises(WrongBlock, match="block 9 is held already: parked"):
        stage.run(JobKind.OFFLINE, blocks="8-9")


def test_what_zones_were_promised_stays(stage: Stage) -> None:
    stage.engine.create(ZoneSpec(name="web", size=7 * BLOCK, nodes="1"))
    with pytest.raises(NoCapacity, match="node 1 can do without"):
        stage.run(JobKind.OFFLINE, blocks="9,11")
    assert not stage.memory.done


def test_a_job_that_is_cut_off_leaves_nothing_and_goes_on_anew(stage: Stage) -> None:
    control = control_of()
    request, body = stage.engine.prepare(JobKind.OFFLINE, {"blocks": "9,11"})
    stage.memory.on_switch = lambda _: control.suspend()
    with pytest.raises(Suspended):
        body(control)
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks
    stage.memory.on_switch = lambda _: None
    stage.engine.bodies()[JobKind.OFFLINE](request)(control_of())
    assert stage.of(PARKED) == [9, 11]


def test_a_job_that_was_cut_off_at_its_very_end_is_done(stage: Stage) -> None:
    """All is parked, and only the daemon's own record of it is missing."""
    request, body = stage.engine.prepare(JobKind.OFFLINE, {"blocks": "9,11"})
    body(control_of())
    stage.engine.bodies()[JobKind.OFFLINE](request)(control_of())
    assert stage.of(PARKED) == [9, 11]
