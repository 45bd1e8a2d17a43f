# SPDX-License-Identifier: Apache-2.0
"""What a job's work gets in hand: figures that add up, and a checkpoint that holds it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.fake_jobs import LIMIT, MIB, at_once
from zoned.engine.jobs.control import Cancelled, JobControl, Suspended
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watched(threading.Condition):
    """Tells when somebody begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)
        self.limits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.limits.append(timeout)
        self.waiting.release()
        return super().wait(timeout)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def control(clock: Clock, told: list[str]) -> JobControl:
    control = JobControl(at_once, lambda: told.append("changed"), clock=clock)
    control._wake = Watched()
    return control


class Aside:
    """Work in a thread of its own, and what became of it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.raised: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except (Cancelled, Suspended) as error:
            self.raised = error

    def ended(self) -> BaseException | None:
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        return self.raised


def waiting(control: JobControl, many: int = 1) -> None:
    """Wait until so many threads wait at the control."""
    assert isinstance(control._wake, Watched)
    for _ in range(many):
        assert control._wake.waiting.acquire(timeout=LIMIT)


def test_figures_add_up(control: JobControl) -> None:
    control.phase("moving")
    control.expect(10 * MIB)
    control.count(Outcome.MOVED, 4 * MIB)
    control.count(Outcome.MOVED, 2 * MIB)
    control.count(Outcome.BUSY, 3 * MIB)
    control.count(Outcome.BUSY, -3 * MIB)
    control.count(Outcome.SHARED, MIB)
    control.called(0.003)
    control.called(0.001)
    control.processes(2, 0)
    control.processes(1, 1)
    control.note("one")
    control.note("two")
    control.note("one")
    control.foreign(5)
    found = control.progress
    assert (found.phase, found.total, found.done) == ("moving", 10 * MIB, 7 * MIB)
    assert found.outcomes == {Outcome.MOVED: 6 * MIB, Outcome.SHARED: MIB}
    assert found.left_behind == MIB
    assert (found.processes, found.gone, found.longest_call) == (3, 1, 0.003)
    assert (found.notes, found.foreign) == (("one", "two"), 5)


def test_figures_of_numpy_can_be_written_down(control: JobControl) -> None:
    control.expect(np.int64(7))  # type: ignore[arg-type]
    control.count(Outcome.MOVED, np.uint64(7))  # type: ignore[arg-type]
    assert json.dumps([control.progress.total, *control.progress.outcomes.values()]) == "[7, 7]"


def test_several_threads_count_right(control: JobControl) -> None:
    def count() -> None:
        for _ in range(1000):
            control.count(Outcome.MOVED, 1)
            control.processes(1, 0)

    for each in [Aside(count) for _ in range(4)]:
        each.ended()
    assert control.progress.outcomes == {Outcome.MOVED: 4000}
    assert control.progress.processes == 4000


def test_notes_do_not_grow_without_end(control: JobControl) -> None:
    for number in range(1000):
        control.note(f"note {number}")
    assert len(control.progress.notes) == 50


def test_a_checkpoint_lets_pass(control: JobControl) -> None:
    control.checkpoint()
    control.pause()
    control.resume()
    control.checkpoint()


def test_a_paused_job_blocks_all_its_threads_until_it_is_resumed(control: JobControl) -> None:
    control.pause()
    passed: list[int] = []

    def mover() -> None:
        control.checkpoint()
        passed.append(1)

    movers = [Aside(mover) for _ in range(3)]
    waiting(control, 3)
    assert passed == []
    control.resume()
    assert [each.ended() for each in movers] == [None] * 3
    assert len(passed) == 3


@pytest.mark.parametrize(
    ("order", "kind"), [("cancel", Cancelled), ("suspend", Suspended)], ids=str
)
def test_a_paused_job_hears_of_its_end(
    control: JobControl, order: str, kind: type[Exception]
) -> None:
    control.pause()
    movers = [Aside(control.checkpoint) for _ in range(2)]
    waiting(control, 2)
    getattr(control, order)()
    assert [type(each.ended()) for each in movers] == [kind] * 2
    with pytest.raises(kind):
        control.checkpoint()


def test_what_is_cancelled_tidies_up_even_when_the_daemon_stops(control: JobControl) -> None:
    control.suspend()
    control.cancel()
    with pytest.raises(Cancelled):
        control.checkpoint()


def test_waiting_takes_its_time(control: JobControl) -> None:
    control.wait(0.001)
    assert isinstance(control._wake, Watched)
    assert control._wake.limits[0] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("order", "kind"), [("cancel", Cancelled), ("suspend", Suspended)], ids=str
)
def test_waiting_ends_early(control: JobControl, order: str, kind: type[Exception]) -> None:
    sleeper = Aside(lambda: control.wait(1000))
    waiting(control)
    getattr(control, order)()
    assert isinstance(sleeper.ended(), kind)


def test_a_pause_holds_what_waits(control: JobControl) -> None:
    sleeper = Aside(lambda: control.wait(1000))
    waiting(control)
    control.pause()
    waiting(control)
    assert isinstance(control._wake, Watched)
    assert control._wake.limits[-1] is None
    control.resume()
    assert sleeper.ended() is None


def test_changes_go_through_the_one_thread() -> None:
    seen: list[str] = []

    def change(work: Callable[[], int]) -> int:
        seen.append("asked")
        return work() + 1

    control = JobControl(change, lambda: None)  # type: ignore[arg-type]
    assert control.change(lambda: 4) == 5
    control.cancel()
    assert control.change(lambda: 6) == 7
    with pytest.raises(ZeroDivisionError):
        control.change(lambda: 1 // 0)
    assert seen == ["asked"] * 3


def test_watchers_hear_four_times_a_second_and_of_each_phase(
    control: JobControl, clock: Clock, told: list[str]
) -> None:
    for _ in range(100):
        control.count(Outcome.MOVED, MIB)
        clock.now += 0.01
    assert 3 <= len(told) <= 5
    control.count(Outcome.MOVED, MIB)
    told.clear()
    control.phase("narrowing the zone")
    control.phase("tidying up")
    assert len(told) == 2


def test_no_rate_before_anything_moved(control: JobControl, clock: Clock) -> None:
    assert control.rate is None
    clock.now += 3
    control.count(Outcome.BUSY, MIB)
    assert control.rate is None


def test_the_rate_is_that_of_the_last_seconds(control: JobControl, clock: Clock) -> None:
    for size in (10 * MIB, 2 * MIB):
        for _ in range(200):
            clock.now += 0.05
            control.count(Outcome.MOVED, size)
        assert control.rate == pytest.approx(size * 20, rel=0.05)
    clock.now += 2.5
    assert control.rate == pytest.approx(20 * MIB, rel=0.1)
    clock.now += 2.6
    assert control.rate is None


def test_what_was_counted_between_two_samples_ages_too(control: JobControl, clock: Clock) -> None:
    for _ in range(2):
        clock.now += 0.11
        control.count(Outcome.MOVED, MIB)
        clock.now += 0.01
        control.count(Outcome.MOVED, MIB)
    clock.now += 5.0
    assert control.rate is None


def test_the_look_before_the_first_move_does_not_slow_the_rate(
    control: JobControl, clock: Clock
) -> None:
    clock.now += 4
    control.phase("moving")
    clock.now += 0.5
    control.count(Outcome.MOVED, 10 * MIB)
    assert control.rate == pytest.approx(20 * MIB)


def test_a_pause_does_not_slow_the_rate(control: JobControl, clock: Clock) -> None:
    clock.now += 1
    control.count(Outcome.MOVED, 10 * MIB)
    control.pause()
    clock.now += 4
    control.resume()
    clock.now += 1
    control.count(Outcome.MOVED, 10 * MIB)
    assert control.rate == pytest.approx(10 * MIB)
