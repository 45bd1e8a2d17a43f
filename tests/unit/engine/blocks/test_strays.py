# SPDX-License-Identifier: Apache-2.0
"""Pages that the kernel pushed off their nodes are put back, also where blocks are not had."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.blocks.stage import NORMAL, Stage, spec
from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import control_of
from zoned.engine.blocks import strays
from zoned.engine.jobs.control import Cancelled
from zoned.errors import BlockBusy, KernelRefused, NoSuchProcess, Partial, TooFewBlocks
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from zoned.kernel.root import Root


class Moves:
    """What was moved: how the blocks were then."""

    def __init__(self, stage: Stage, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[dict[int, str]] = []
        self.stays = 0
        self.error: Exception | None = None
        self._stage = stage
        stage.world.add_process(70, mems="1")
        stage.world.add_process(71, mems="0-1")
        patch.setattr(strays, "move_all_pages", self._move)

    def _move(self, _: Root, pid: int, nodes: frozenset[int]) -> int:
        assert (pid, nodes) == (70, frozenset({1}))
        self.seen.append(self._stage.kinds)
        if self.error is not None:
            raise self.error
        return self.stays


@pytest.fixture
def moves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Moves:
    return Moves(stage, monkeypatch)


def have_two_only(stage: Stage) -> None:
    for number in range(8, 14):
        stage.memory.busy[number] = [BlockBusy("no"), BlockBusy("no")]


def test_before_the_blocks_come_online(stage: Stage, moves: Moves) -> None:
    moves.stays = 2
    progress = stage.create(1)
    assert moves.seen == [NORMAL | {15: "-"}]
    assert "8KiB of confined processes are still off their nodes" in progress.notes


def test_once_the_blocks_are_back_where_too_few_go(stage: Stage, moves: Moves) -> None:
    have_two_only(stage)
    with pytest.raises(TooFewBlocks):
        stage.create(3)
    assert moves.seen == [NORMAL]


@pytest.mark.parametrize("last", [15, 13])
def test_once_the_blocks_are_back_after_a_cancellation(
    stage: Stage, moves: Moves, last: int
) -> None:
    control = control_of()
    _, body = stage.engine.prepare(JobKind.CREATE, {"spec": spec(3)})
    stage.memory.on_switch = lambda number: control.cancel() if number == last else None
    with pytest.raises(Cancelled):
        body(control)
    assert moves.seen == [NORMAL]


def test_while_what_was_taken_is_kept(stage: Stage, moves: Moves) -> None:
    have_two_only(stage)
    with pytest.raises(Partial):
        stage.run(JobKind.PARK, node=1, size=3 * BLOCK, keep=True)
    assert moves.seen == [NORMAL | {14: "-", 15: "-"}]


def test_not_where_no_block_was_touched(stage: Stage, moves: Moves) -> None:
    with pytest.raises(TooFewBlocks):
        stage.create(7)
    assert not moves.seen


@pytest.mark.parametrize("error", [KernelRefused("no"), OSError(errno.EFAULT, "no")])
def test_why_it_failed_is_told_all_the_same(stage: Stage, moves: Moves, error: Exception) -> None:
    have_two_only(stage)
    moves.error = error
    control = control_of()
    _, body = stage.engine.prepare(JobKind.CREATE, {"spec": spec(3)})
    with pytest.raises(TooFewBlocks):
        body(control)
    assert any("were not put back: " in note for note in control.progress.notes)


def test_processes_that_end_meanwhile(stage: Stage, moves: Moves) -> None:
    moves.error = NoSuchProcess("gone")
    stage.create(1)
    assert stage.of("zone:db") == [15]


def test_once_a_zone_has_given_its_blocks_back(stage: Stage, moves: Moves) -> None:
    stage.create(1)
    moves.seen.clear()
    stage.run(JobKind.DESTROY, name="db")
    assert moves.seen == [NORMAL]


def test_once_all_blocks_are_back_after_a_reset(stage: Stage, moves: Moves) -> None:
    stage.create(1)
    moves.seen.clear()
    assert stage.engine.reset() == []
    assert moves.seen[-1:] == [NORMAL]


def test_once_parked_blocks_are_back_though_the_job_was_cancelled(
    stage: Stage, moves: Moves
) -> None:
    stage.run(JobKind.PARK, node=1, size=BLOCK)
    moves.seen.clear()
    control = control_of()
    _, body = stage.engine.prepare(JobKind.UNPARK, {"node": 1})
    stage.memory.on_switch = lambda _: control.cancel()
    body(control)
    assert moves.seen == [NORMAL]
