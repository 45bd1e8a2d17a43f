# SPDX-License-Identifier: Apache-2.0
"""From the policy to memory that stands, and back: by the rung `lowmem`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.engine.dma.conftest import CARD, wish
from tests.unit.fake_low_memory import GIB, MIB, RATIO
from zoned.model.dma.held import Held
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from tests.unit.engine.dma.conftest import Scene

NAME = f"teach@{CARD}"


def test_a_wish_becomes_a_reservation_and_goes_with_it(scene: Scene) -> None:
    assert scene.want(wish(size=64 * MIB)) == [f"reserve memory: {NAME}"]
    assert scene.held == {
        NAME: Held(
            name=NAME,
            rung=Rung.LOWMEM,
            size=64 * MIB,
            mask=bits_mask(31),
            devices=(CARD,),
            standing=True,
        )
    }
    # 6 GiB of Normal / 64 MiB
    assert scene.memory.ratio == (256, 96, 32, 0, 0)
    assert scene.memory.protects() == 64 * MIB
    assert scene.engine.machine.ledger.touched.ratio == RATIO
    assert scene.tick() == []
    assert scene.alerts == {}
    assert scene.want() == [f"give back memory: {NAME}"]
    assert scene.held == {}
    assert scene.memory.ratio == RATIO
    assert scene.engine.machine.ledger.touched.ratio is None


def test_it_follows_the_device(scene: Scene) -> None:
    scene.want(wish())
    scene.pull()
    assert scene.tick() == [f"give back memory: {NAME}"]
    assert (scene.held, scene.memory.ratio) == ({}, RATIO)
    assert scene.alerts == {}
    scene.folder.joinpath(f"sys/devices/pci0000:00/{CARD}").rename(scene.folder / "gone")
    scene.plug()
    assert scene.tick() == [f"reserve memory: {NAME}"]
    assert scene.memory.protects() == 64 * MIB


def test_one_setting_serves_the_sum(scene: Scene) -> None:
    scene.plug("0000:00:03.0")
    scene.want(wish(size=GIB // 4))
    assert scene.memory.ratio[1] == 12
    assert scene.memory.protects() == GIB // 2
    scene.pull("0000:00:03.0")
    scene.tick()
    assert scene.memory.ratio[1] == 24
    assert scene.engine.machine.ledger.touched.ratio == RATIO
    scene.pull()
    scene.tick()
    assert scene.memory.ratio == RATIO
