# SPDX-License-Identifier: Apache-2.0
"""Reservations that are cut off, or do not hold: nothing of them is left or lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.conftest import CARD, policy, wish
from tests.unit.fake_low_memory import RATIO
from tests.unit.fakes import control_of
from zoned.model.dma.rung import Rung
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from tests.unit.engine.dma.conftest import Scene
    from zoned.engine.ledger import Touched

NAME = f"teach@{CARD}"
OTHER = "0000:00:03.0"
LOWMEM: dict[str, Any] = {"rungs": (Rung.LOWMEM,)}


STEPS = {True: 3, False: 3}
"""How often the ledger is written to while memory is given back, and while it is reserved."""


@pytest.mark.parametrize(
    ("going", "step"), [(going, step) for going, steps in STEPS.items() for step in range(steps)]
)
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_it_is_finished_by_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, step: int, *, after: bool, going: bool
) -> None:
    class Killed(BaseException):
        pass

    if going:
        scene.want(wish())
    ledger = scene.engine.machine.ledger
    real, count = ledger._save, 0

    def killed(touched: Touched) -> None:
        nonlocal count
        count += 1
        if count <= step or after:
            real(touched)
        if count > step:
            raise Killed

    scene.engine.machine.policy = scene.policy = policy() if going else policy(wish())
    kind = JobKind.DMA_RELEASE if going else JobKind.DMA_RESERVE
    _, body = scene.engine.prepare(kind, {"name": NAME, "unwanted": True})
    monkeypatch.setattr(ledger, "_save", killed)
    with pytest.raises(Killed):
        body(control_of())
    scene.start()
    scene.tick()
    assert list(scene.held) == ([] if going else [NAME])
    assert all(each.standing for each in scene.held.values())
    assert scene.memory.ratio == (RATIO if going else (256, 96, 32, 0, 0))
    assert scene.alerts == {}
    scene.want()
    assert (scene.held, scene.memory.ratio) == ({}, RATIO)
    assert scene.engine.machine.ledger.touched.ratio is None


def test_these_are_all_steps(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict.fromkeys(STEPS, 0)
    for going in (False, True):
        ledger = scene.engine.machine.ledger
        real = ledger._save

        def counted(touched: Touched, going: bool = going) -> None:  # noqa: FBT001
            found[going] += 1
            real(touched)  # noqa: B023

        monkeypatch.setattr(ledger, "_save", counted)
        scene.want(*([] if going else [wish()]))
        monkeypatch.undo()
        scene.memory.answer(monkeypatch)
    assert found == STEPS


def test_a_rung_that_fails_at_once_is_passed_over(scene: Scene) -> None:
    scene.memory.deaf = True
    # All of it would have to lie in a region that is not there, or after a reboot.
    assert scene.want(wish()) == [f"reserve memory: {NAME} [pending-reboot]"]
    assert scene.held == {}
    assert scene.tick() == []
    (told,) = scene.alerts.values()
    assert told.startswith(f"[reservation-missing] reservation {NAME} is possible only after")
    assert scene.jobs.notes[-1].startswith("lowmem: the kernel keeps 24MiB of DMA32, and 64MiB")


def test_what_does_not_show_is_given_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoned.engine.dma.lowmem.Lowmem.faults", lambda *_: ["it leaks"])
    assert scene.want(wish(**LOWMEM)) == [f"reserve memory: {NAME} [no-rung]"]
    assert (scene.held, scene.memory.ratio) == ({}, RATIO)
    assert scene.tick() == []
    (told,) = scene.alerts.values()
    assert "lowmem: it does not show: it leaks" in told


def test_a_setting_that_could_not_be_put_back_is_put_back_later(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def leave_behind() -> None:
        scene.engine.machine.ledger.ratio_was(RATIO)
        scene.memory.set(256, 5, 32, 0, 0)

    leave_behind()
    scene.memory.refuses = "No"
    scene.tick()
    assert "memory for devices: [kernel-refused]" in caplog.text
    assert scene.memory.ratio == RATIO
    assert scene.engine.machine.ledger.touched.ratio is None
    leave_behind()
    scene.memory.refuses = "No"
    (told,) = scene.engine.reset()
    assert told.startswith("low memory: echo '256 256 32 0 0' > ")
    assert scene.engine.reset() == []
    assert scene.memory.ratio == RATIO
