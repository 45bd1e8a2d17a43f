# SPDX-License-Identifier: Apache-2.0
"""The kernel's areas for contiguous memory, counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.conftest import CARD, wish
from zoned.engine.blocks.hands import Direct
from zoned.engine.dma.cma import Cma
from zoned.errors import RungFails
from zoned.model.dma.held import Held
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from tests.unit.engine.dma.conftest import Scene

MIB = 1 << 20
NAME = f"teach@{CARD}"
CMA: dict[str, Any] = {"rungs": (Rung.CMA,)}


@pytest.fixture
def area(scene: Scene) -> Scene:
    """A machine with 128 MiB of CMA below 2 GiB, half of it free."""
    scene.memory.cma["DMA32"] = 128 * MIB, 64 * MIB
    scene.memory.tell()
    return scene


def test_a_reservation_is_counted(area: Scene) -> None:
    assert area.want(wish(size=48 * MIB)) == [f"reserve memory: {NAME}"]
    assert (area.held[NAME].rung, area.held[NAME].standing) == (Rung.CMA, True)
    assert not any("are free at the moment" in note for note in area.jobs.notes)
    assert area.memory.writes == []
    assert area.tick() == []
    area.want()
    assert area.held == {}


def test_nobody_is_promised_what_another_has(area: Scene) -> None:
    area.plug("0000:00:03.0")
    area.want(wish(size=80 * MIB, **CMA))
    assert list(area.held) == [NAME]
    assert list(area.alerts) == ["reservation teach@0000:00:03.0"]


def test_it_is_told_where_others_are_in_it(area: Scene) -> None:
    area.want(wish(size=80 * MIB))
    assert area.jobs.notes[0] == (
        "64MiB of CMA are free at the moment; the kernel moves what is in the rest elsewhere when"
        " a driver asks for it"
    )


def test_where_it_is_not_there_after_all(area: Scene) -> None:
    area.want(wish(size=80 * MIB, **CMA))
    area.memory.cma.clear()
    area.memory.tell()
    area.tick()
    assert area.alerts == {
        f"reservation {NAME}": "[reservation-broken] 0B of CMA lie below the limit, and 80MiB are"
        " reserved there"
    }


def test_those_that_reach_less_far_have_their_part(area: Scene) -> None:
    ledger = area.engine.machine.ledger
    near = Held(name="near", rung=Rung.CMA, size=100 * MIB, mask=bits_mask(31))
    far = Held(name="far", rung=Rung.CMA, size=100 * MIB, mask=bits_mask(32))
    ledger.reserved(far)
    ledger.reserved(near)
    assert Cma().hold(area.engine.machine, Direct(), near) == near
    with pytest.raises(RungFails, match="128MiB of CMA lie below the limit, and 200MiB are"):
        Cma().hold(area.engine.machine, Direct(), far)
