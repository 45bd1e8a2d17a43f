# SPDX-License-Identifier: Apache-2.0
"""Devices that come and go while a job is at work: what came of it is not what is wanted now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.unit.engine.dma.conftest import CARD, policy, wish
from zoned.engine.operations import dma_release, dma_reserve
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.match import Match
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import Quirk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    import pytest

    from tests.unit.engine.dma.conftest import Scene

OTHER = "0000:00:03.0"
NAME = f"teach@{CARD}"


def run_while(
    scene: Scene, patch: pytest.MonkeyPatch, module: ModuleType, name: str, what: Callable[[], None]
) -> Sequence[str]:
    """Run the jobs that wait; have something happen, and be looked at, when one begins its work."""
    real = getattr(module, name)

    def meanwhile(*arguments: Any) -> Any:
        what()
        scene.engine.dma_look()
        return real(*arguments)

    with patch.context() as here:
        here.setattr(module, name, meanwhile)
        return scene.jobs.run()


def test_a_device_of_shorter_reach_joins_a_pool(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = policy(wish(pool="both", rungs=(Rung.LOWMEM,)))
    far = Quirk(match=Match(path=(f"*/{CARD}",)), limit=bits_mask(32), place="q.yaml:2")
    scene.policy = replace(asked, dma=replace(asked.dma, quirks=(*asked.dma.quirks, far)))
    scene.engine.reload()
    run_while(scene, monkeypatch, dma_reserve, "reserve", lambda: scene.plug(OTHER))
    assert scene.held["both"].mask == bits_mask(32)
    assert scene.tick() == ["reserve memory: both"]
    assert (scene.held["both"].mask, scene.held["both"].devices) == (bits_mask(31), (CARD, OTHER))
    assert scene.alerts == {}


def test_a_device_comes_back_while_its_memory_is_given_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.policy = policy(wish(rungs=(Rung.LOWMEM,)))
    scene.engine.reload()
    run_while(scene, monkeypatch, dma_reserve, "reserve", scene.pull)
    scene.engine.tick()

    def come_back() -> None:
        (scene.folder / f"sys/devices/pci0000:00/{CARD}").rename(scene.folder / "gone")
        scene.plug()

    ran = run_while(scene, monkeypatch, dma_release, "release", come_back)
    assert ran == [f"give back memory: {NAME}"]
    assert scene.held == {}
    assert scene.tick() == [f"reserve memory: {NAME}"]
    assert list(scene.held) == [NAME]
