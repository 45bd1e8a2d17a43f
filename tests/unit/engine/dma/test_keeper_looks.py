# SPDX-License-Identifier: Apache-2.0
"""How closely the keeper looks: a device waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.conftest import CARD, policy, wish
from zoned.engine.dma import keeper as keeper_module
from zoned.engine.dma.sight import look, look_for
from zoned.engine.dma.wanted import What
from zoned.kernel import dma_offer
from zoned.kernel.block_outlook import outlooks
from zoned.model.dma.rung import Rung
from zoned.model.job import JobKind, JobRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.unit.engine.dma.conftest import Scene
    from zoned.engine.jobs.control import Body
    from zoned.engine.machine import Machine
    from zoned.kernel.root import Root
    from zoned.model.block import Outlook
    from zoned.model.topology import Block

SPARE = "0000:00:03.0"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each look of the keeper, whether it was at the pages of memory blocks, too."""
    seen: list[bool] = []

    def count(machine: Machine, *, whole: bool = True, **more: Any) -> Any:
        seen.append(whole)
        return look(machine, whole=whole, **more)

    monkeypatch.setattr(keeper_module, "look", count)
    return seen


def test_pages_are_not_looked_at_for_a_rung_before_blocks(scene: Scene, looks: list[bool]) -> None:
    scene.want(wish())
    looks.clear()
    scene.plug(SPARE)
    scene.engine.dma_look()
    assert looks == [False]
    assert scene.jobs.run() == [f"reserve memory: teach@{SPARE}"]


@pytest.mark.parametrize("rungs", [(Rung.BLOCKS, Rung.HUGETLB), (Rung.PENDING_REBOOT,)])
def test_pages_are_looked_at_for_the_others(
    scene: Scene, looks: list[bool], rungs: tuple[Rung, ...]
) -> None:
    scene.want(wish(rungs=rungs))
    assert looks[:2] == [False, True]


def test_pages_are_looked_at_once_for_the_keeper_and_its_job(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Block, ...]] = []

    def count(root: Root, blocks: Iterable[Block]) -> Iterator[Outlook]:
        seen.append(tuple(blocks))
        return outlooks(root, seen[-1])

    monkeypatch.setattr(dma_offer, "outlooks", count)
    scene.policy = policy(wish(rungs=(Rung.PENDING_REBOOT, Rung.BLOCKS)))
    monkeypatch.setattr(keeper_module, "to_do", lambda *_: {f"teach@{CARD}": What.SET_UP})
    scene.engine.reload()
    assert len(seen) == 1
    assert scene.jobs.run() == [f"reserve memory: teach@{CARD} [pending-reboot]"]
    assert len(seen) == 1
    assert look_for(scene.engine.machine, f"teach@{CARD}") is not None
    assert len(seen) == 2, "what was seen then is old by now"


def test_what_was_seen_for_a_job_that_did_not_begin_is_not_kept(scene: Scene) -> None:
    scene.engine.machine.low_blocks[f"teach@{CARD}"] = ()
    scene.engine.dma_look()
    assert scene.engine.machine.low_blocks == {}


def test_pages_are_not_looked_at_while_a_job_works_on_it(scene: Scene, looks: list[bool]) -> None:
    """It takes blocks, and each of those is an event."""
    scene.policy = policy(wish(rungs=(Rung.LOWMEM, Rung.HUGETLB)))
    scene.memory.free["DMA32"] = 0
    scene.memory.tell()
    scene.engine.reload()
    assert looks == [False, True]
    looks.clear()
    (number,) = scene.jobs.waiting = {7: pretended(f"dma:teach@{CARD}")}
    scene.engine.dma_look()
    assert looks == [False]
    assert list(scene.jobs.waiting) == [number]
    scene.jobs.waiting.clear()
    looks.clear()
    scene.engine.dma_look()
    assert looks == [False, True]


def pretended(name: str) -> tuple[JobRequest, Body]:
    """Return a job that holds a name."""
    request = JobRequest(kind=JobKind.DMA_RESERVE, what="reserve", zones=(name,), parameters={})
    return request, lambda _: None


def test_nothing_is_looked_at_where_a_job_is_known(scene: Scene, looks: list[bool]) -> None:
    scene.want(wish())
    scene.plug(SPARE)
    scene.engine.dma_look()
    looks.clear()
    (number,) = scene.jobs.waiting
    assert scene.engine.dma_prepare(SPARE) == number
    assert looks == []
    # Its neighbour's memory stands.
    assert scene.engine.dma_prepare(CARD) is None
    assert looks == [False]
