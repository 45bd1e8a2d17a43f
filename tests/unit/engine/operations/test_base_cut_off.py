# SPDX-License-Identifier: Apache-2.0
"""Base zones that come and go while the daemon is killed: the next start finishes or undoes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.operations.base_scene import ADD, REMOVE, kinds, make_scene
from tests.unit.fakes import control_of
from zoned.engine import ledger
from zoned.engine.base.regions import RegionKeeper, is_cut_off
from zoned.errors import KernelRefused, NotAsWritten
from zoned.kernel.state_file import save_json
from zoned.model.base import DaxMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.unit.engine.operations.base_scene import Scene
    from zoned.engine.jobs.control import Body
    from zoned.model.job import JobKind, JobRequest

DEVDAX, RAM, DISABLED = DaxMode.DEVDAX, DaxMode.SYSTEM_RAM, DaxMode.DISABLED


class Killed(BaseException):
    """The end of the daemon: nothing catches it, as nothing catches SIGKILL."""


class Jobs:
    """Runs each job at once, in the caller's thread."""

    active = ()

    def refuse_busy(self, name: str) -> None:
        """See JobRunner."""

    def start(self, request: JobRequest, uid: int, body: Body) -> JobRequest:
        """See JobRunner."""
        body(control_of())
        return request


def add_region(_: Scene) -> tuple[JobKind, dict[str, Any]]:
    return ADD, {"base": "dax0.0"}


def add_region_movable(_: Scene) -> tuple[JobKind, dict[str, Any]]:
    return ADD, {"base": "dax0.0", "movable_only": True}


def remove_region(scene: Scene) -> tuple[JobKind, dict[str, Any]]:
    scene.run(ADD, "dax0.0")
    return REMOVE, {"base": "dax0.0"}


def remove_node(scene: Scene) -> tuple[JobKind, dict[str, Any]]:
    scene.run(ADD, "dax0.0")
    return REMOVE, {"base": "2"}


def arm(scene: Scene, patch: pytest.MonkeyPatch, point: int) -> None:
    """Have the daemon killed at its n-th step: a save of the ledger, or a change of the machine."""
    left = point

    def tick(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    def save(path: Path, data: Mapping[str, Any]) -> None:
        tick()
        save_json(path, data)
        tick()

    patch.setattr(ledger, "save_json", save)
    scene.memory.on_switch = tick
    scene.on_step = tick


def killed(scene: Scene, patch: pytest.MonkeyPatch, body: Body, point: int) -> bool:
    """Return whether the daemon was killed at that step of a job, and not started anew yet."""
    with patch.context() as inner:
        arm(scene, inner, point)
        try:
            body(control_of())
        except Killed:
            return True
        finally:
            scene.memory.on_switch = lambda _: None
            scene.on_step = lambda: None
    return False


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "forgotten"])
@pytest.mark.parametrize("scenario", [add_region, add_region_movable, remove_region, remove_node])
def test_killed_at_any_point(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Callable[[Scene], tuple[JobKind, dict[str, Any]]],
    *,
    resumed: bool,
) -> None:
    for point in range(300):
        with monkeypatch.context() as patch:
            scene = make_scene(tmp_path / str(point), patch)
            patch.setattr("zoned.engine.blocks.keeper.BlockSwitch", scene.memory.switch)
            kind, parameters = scenario(scene)
            request, body = scene.engine.prepare(kind, parameters)
            was_killed = killed(scene, patch, body, point)
            scene.restart()
            if resumed:
                scene.engine.bodies()[kind](request)(control_of())
            scene.engine.jobs = Jobs()  # type: ignore[assignment]
            scene.engine.tick()
            check(scene, kind if resumed else None)
            if not was_killed:
                assert point > 5
                return
    pytest.fail("it never came through")


def check(scene: Scene, done: JobKind | None) -> None:
    """Assert that the region is memory, all of it, or programs': what the job was for, if any."""
    expected = {ADD: {RAM}, REMOVE: {DEVDAX}, None: {RAM, DEVDAX}}[done]
    assert scene.mode in expected
    assert len(kinds(scene)) == (4 if scene.mode is RAM else 0)
    assert "-" not in kinds(scene)
    touched = scene.engine.machine.ledger.touched
    assert not touched.blocks
    assert not touched.regions
    assert scene.memory.auto_online() == "online"


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "forgotten"])
def test_killed_at_any_point_while_blocks_become_movable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, resumed: bool
) -> None:
    for point in range(300):
        with monkeypatch.context() as patch:
            scene = make_scene(tmp_path / str(point), patch)
            for module in ("blocks.keeper", "operations.blocks"):
                patch.setattr(f"zoned.engine.{module}.BlockSwitch", scene.memory.switch)
            scene.memory.add(2, 16, 17, 18, zone="Normal")
            request, body = scene.engine.prepare(ADD, {"base": "2"})
            was_killed = killed(scene, patch, body, point)
            before = kinds(scene)
            scene.restart()
            assert not scene.held()
            assert kinds(scene) == before.replace("-", "K"), "what was done stays"
            if resumed:
                scene.engine.bodies()[ADD](request)(control_of())
                assert kinds(scene) == "KMM"
            if not was_killed:
                assert point > 5
                return
    pytest.fail("it never came through")


@pytest.mark.parametrize("refused", [KernelRefused("no"), NotAsWritten("until the next boot")])
def test_region_that_stays_between_drivers_is_tried_again(
    scene: Scene, refused: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene.run(ADD, "dax0.0")
    scene.mode = DISABLED
    scene.memory.remove(64, 65, 66, 67)
    scene.engine.machine.ledger.regions_change({"dax0.0": RAM})
    scene.refuse = refused
    scene.restart()
    assert scene.mode is DISABLED
    assert str(refused) in caplog.text
    scene.refuse = None
    scene.restart()
    assert scene.mode is DEVDAX
    assert "dax0.0 was between drivers" in caplog.text
    assert not scene.engine.machine.ledger.touched.regions


def test_reset_gives_a_region_without_a_driver_back(scene: Scene) -> None:
    scene.mode = DISABLED
    scene.engine.machine.ledger.regions_change({"dax0.0": DEVDAX})
    scene.refuse = KernelRefused("no")
    left = scene.engine.reset()
    assert left == ["dax0.0: no driver has it, so it is neither memory nor programs'"]
    scene.refuse = None
    assert scene.engine.reset() == []
    assert scene.mode is DEVDAX


def test_region_is_left_to_a_job_that_is_at_work(scene: Scene) -> None:
    scene.mode = DISABLED
    scene.engine.machine.ledger.regions_change({"dax0.0": DEVDAX})
    RegionKeeper(scene.engine.machine, lambda *_: None, {"node:2"}.__contains__).settle()
    assert scene.mode is DISABLED
    assert scene.engine.machine.ledger.touched.regions


def test_region_that_is_gone_is_forgotten(scene: Scene) -> None:
    scene.engine.machine.ledger.regions_change({"dax7.0": DEVDAX})
    scene.restart()
    assert not scene.engine.machine.ledger.touched.regions


@pytest.mark.parametrize(
    ("former", "mode", "has_blocks", "expected"),
    [
        (DEVDAX, DEVDAX, False, False),
        (DEVDAX, DISABLED, False, True),
        (DEVDAX, RAM, True, False),
        (DEVDAX, RAM, False, True),
        (RAM, RAM, True, False),
        (RAM, RAM, False, True),
        (RAM, DISABLED, False, True),
        (DISABLED, DISABLED, False, False),
    ],
)
def test_what_is_cut_off(
    former: DaxMode, mode: DaxMode, *, has_blocks: bool, expected: bool
) -> None:
    assert is_cut_off(former, mode, has_blocks=has_blocks) is expected
