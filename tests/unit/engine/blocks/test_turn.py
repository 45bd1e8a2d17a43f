# SPDX-License-Identifier: Apache-2.0
"""Who waits for the turn on memory blocks says for whom."""

from __future__ import annotations

import pytest

from tests.unit.fake_jobs import at_once
from tests.unit.fakes import control_of
from zoned.engine.blocks import hands
from zoned.engine.blocks.hands import Direct, Hands, Turn
from zoned.engine.jobs.control import Cancelled, JobControl
from zoned.errors import TryLater

NAME = "job 3 (park 1GiB of node 1)"


def wait_behind(turn: Turn, holder: Hands) -> str:
    """Return what a job tells while it waits for the turn that the holder has."""
    told: list[str] = []

    def changed() -> None:
        told.append(waiter.progress.phase)
        waiter.cancel()

    waiter = JobControl(at_once, changed)
    with turn.taken(holder), pytest.raises(Cancelled), turn.taken(waiter):
        pytest.fail("two had the turn")
    return told[0]


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Turn:
    monkeypatch.setattr(hands, "_LOOK", 0.001)
    return Turn()


def test_it_waits_for_a_job(turn: Turn) -> None:
    holder = JobControl(at_once, lambda: None, name=NAME)
    assert wait_behind(turn, holder) == f"waiting for {NAME}: it has memory blocks in hand"


def test_it_waits_for_a_paused_job(turn: Turn) -> None:
    holder = JobControl(at_once, lambda: None, name=NAME)
    holder.pause()
    told = wait_behind(turn, holder)
    assert told == f"waiting for {NAME}, which is paused: it has memory blocks in hand"


def test_it_waits_for_the_daemon(turn: Turn) -> None:
    assert wait_behind(turn, Direct()).startswith("waiting for the daemon itself: ")


def test_what_cannot_wait_says_for_whom_it_would(turn: Turn) -> None:
    holder = JobControl(at_once, lambda: None, name=NAME)
    with (
        turn.taken(holder),
        pytest.raises(TryLater, match=r"^job 3 \(park .*\) works on memory"),
        turn.now(),
    ):
        pytest.fail("two had the turn")
    with turn.now(), pytest.raises(TryLater, match="the daemon itself works"), turn.now():
        pytest.fail("two had the turn")


def test_whoever_has_only_just_taken_the_turn_is_not_known_yet() -> None:
    assert hands._waiting_for(None) == "waiting for another job on memory blocks"


def test_a_paused_job_that_is_to_end_waits_no_more() -> None:
    control = control_of()
    control.pause()
    assert control.is_paused
    control.cancel()
    assert not control.is_paused
