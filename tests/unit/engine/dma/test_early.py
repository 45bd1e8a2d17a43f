# SPDX-License-Identifier: Apache-2.0
"""Reserving at boot: what is wanted, as far as the time goes, and the daemon goes on with it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.conftest import CARD, policy, wish
from tests.unit.fake_low_memory import MIB, RATIO
from zoned.engine.dma.early import Limited, reserve_early
from zoned.engine.dma.reserve import reserve
from zoned.engine.dma.sight import look
from zoned.engine.jobs.control import Cancelled
from zoned.errors import NoRung
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.match import Match
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from tests.unit.engine.dma.conftest import Scene
    from zoned.engine.blocks.hands import Hands
    from zoned.engine.dma.wanted import Wanted
    from zoned.engine.machine import Machine
    from zoned.model.dma.allot import Report
    from zoned.model.dma.held import Held
    from zoned.model.dma.wish import Wish

NAME = f"teach@{CARD}"
HOLD = wish("spare", match=Match(id=("1234:9999",)), limit=bits_mask(31), hold=True)
PMEM = "10000000-17ffffff : Persistent Memory (legacy)\n"


def early(scene: Scene, *wishes: Wish, seconds: float = 60.0) -> list[str]:
    """Do what runs at boot, with no daemon yet; return what is left."""
    machine = scene.world.machine()
    machine.policy = policy(*wishes)
    return reserve_early(machine, Limited(seconds))


def test_what_is_there_and_what_is_held_is_reserved_and_the_daemon_goes_on(scene: Scene) -> None:
    assert early(scene, wish(), HOLD) == []
    assert scene.memory.protects() >= 128 * MIB
    scene.start()
    assert {name: each.standing for name, each in scene.held.items()} == {
        NAME: True,
        "spare": True,
    }
    assert scene.want(wish(), HOLD) == []
    assert scene.want() == [f"give back memory: {NAME}", "give back memory: spare"]
    assert scene.memory.ratio == RATIO


def test_again_there_is_nothing_to_do(scene: Scene) -> None:
    early(scene, wish())
    assert early(scene, wish()) == []


def test_what_is_not_wanted_any_more_is_the_daemons_affair(scene: Scene) -> None:
    early(scene, wish())
    assert early(scene) == []
    scene.start()
    assert list(scene.held) == [NAME]


def test_what_fails_is_told_and_keeps_no_other_from_its_memory(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(machine: Machine, hands: Hands, wanted: Wanted) -> Held:
        if wanted.name == NAME:
            raise NoRung("none holds", hint="pray")
        return reserve(machine, hands, wanted)

    monkeypatch.setattr("zoned.engine.dma.early.reserve", fail)
    (told,) = early(scene, wish(priority=90), HOLD)
    assert told.startswith(f"reservation {NAME}: [no-rung] none holds")
    scene.start()
    assert list(scene.held) == ["spare"]


def test_what_cannot_be_had_is_not_tried(scene: Scene) -> None:
    assert early(scene, wish(size=1 << 40)) == []
    assert scene.memory.ratio == RATIO


def test_without_time_nothing_is_begun(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Machine] = []

    def count(machine: Machine) -> tuple[Report, ...]:
        looks.append(machine)
        return look(machine)

    monkeypatch.setattr("zoned.engine.dma.early.look", count)
    told = early(scene, wish(), HOLD, seconds=0.0)
    assert sorted(told) == [
        "reservation spare: there is no time left",
        f"reservation {NAME}: there is no time left",
    ]
    assert scene.memory.ratio == RATIO
    assert len(looks) == 1


def test_when_time_runs_out_the_daemon_sees_to_the_rest(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(machine: Machine, hands: Hands, wanted: Wanted) -> Held:
        if wanted.name == "spare":
            raise Cancelled
        return reserve(machine, hands, wanted)

    monkeypatch.setattr("zoned.engine.dma.early.reserve", slowly)
    assert early(scene, wish(), HOLD) == ["reservation spare: there is no time left"]
    scene.start()
    assert scene.want(wish(), HOLD) == ["reserve memory: spare"]


@pytest.mark.parametrize(
    ("iomem", "rungs", "is_left"),
    [
        (PMEM, tuple(Rung), True),
        (PMEM + "  10000000-17ffffff : namespace0.0\n", tuple(Rung), False),
        (PMEM, (Rung.LOWMEM,), False),
        ("f0000000-f7ffffff : Persistent Memory\n", tuple(Rung), False),
        ("10000000-100fffff : Persistent Memory\n", tuple(Rung), False),
    ],
)
def test_a_region_that_has_no_driver_yet_is_worth_waiting_for(
    scene: Scene, iomem: str, rungs: tuple[Rung, ...], *, is_left: bool
) -> None:
    file = scene.folder / "proc/iomem"
    file.write_text((file.read_text() if file.exists() else "") + iomem)
    told = early(scene, wish(rungs=rungs))
    assert [each.split(": ")[1] for each in told] == (
        ["persistent memory lies below its limit, and has no driver yet"] if is_left else []
    )
    assert (scene.memory.ratio == RATIO) is is_left


def test_hands_tell_and_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [5.0]
    hands = Limited(10.0, lambda: now[0])
    hands.note("64MiB on lowmem")
    hands.checkpoint()
    before = hands.ends
    now[0] = 15.0
    assert (before, hands.ends) == (False, True)
    with pytest.raises(Cancelled):
        hands.checkpoint()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.INFO, "64MiB on lowmem")
