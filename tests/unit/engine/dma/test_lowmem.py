# SPDX-License-Identifier: Apache-2.0
"""The rung `lowmem` by itself: what it refuses, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fake_low_memory import GIB, MIB, RATIO
from zoned.engine.blocks.hands import Direct
from zoned.engine.dma.lowmem import Lowmem
from zoned.errors import KernelRefused, NotAsWritten, RungFails
from zoned.kernel import lowmem
from zoned.kernel.lowmem import write_ratio
from zoned.kernel.root import sysroot
from zoned.model.dma.held import Held
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from tests.unit.engine.dma.conftest import Scene


def hold(scene: Scene, name: str = "a", size: int = 64 * MIB, **more: Any) -> Held:
    """Reserve so much, as the ladder does."""
    fields = {"mask": bits_mask(31), **more}
    asked = Held(name=name, rung=Rung.LOWMEM, size=size, **fields)
    machine = scene.engine.machine
    machine.ledger.reserved(asked)
    return Lowmem().hold(machine, Direct(), asked)


def test_what_lies_beyond_the_limit_is_kept_on_top(scene: Scene) -> None:
    scene.memory.free["DMA32"] = 2 * GIB - 16 * MIB
    scene.memory.tell()
    # Of 2 GiB one lies beyond 30 bits.
    held = hold(scene, mask=bits_mask(30))
    assert scene.memory.protects() >= GIB + 64 * MIB
    assert Lowmem().faults(scene.engine.machine, held) == []
    scene.memory.set(256, 60, 32, 0, 0)
    (told,) = Lowmem().faults(scene.engine.machine, held)
    assert told.startswith("the kernel keeps 102.4MiB of DMA32 from ordinary allocations, and 1.1G")


def test_a_device_that_reaches_24_bits_has_the_lowest_zone(scene: Scene) -> None:
    hold(scene, "isa", 8 * MIB, mask=bits_mask(24))
    assert scene.memory.protects("DMA") >= 8 * MIB
    assert scene.memory.ratio[1:] == RATIO[1:]


@pytest.mark.parametrize(
    ("free", "size", "told"),
    [
        (32 * MIB, 64 * MIB, "32MiB of DMA32 are free below the limit by now"),
        (0, 4096, "0B of DMA32 are free"),
    ],
)
def test_nothing_free(scene: Scene, free: int, size: int, told: str) -> None:
    scene.memory.free["DMA32"] = free
    scene.memory.tell()
    with pytest.raises(RungFails, match=told):
        hold(scene, size=size)
    assert scene.memory.writes == []


def test_too_little_above(scene: Scene) -> None:
    scene.memory.managed["Normal"] = 32 * MIB
    scene.memory.tell()
    with pytest.raises(RungFails, match="keeps 32MiB of DMA32, and 64MiB are needed"):
        hold(scene)
    assert scene.memory.ratio == RATIO
    assert scene.engine.machine.ledger.touched.ratio is None


def test_one_that_fails_leaves_the_others_theirs(scene: Scene) -> None:
    hold(scene, "a")
    scene.memory.managed["Normal"] = 96 * MIB
    scene.memory.tell()
    with pytest.raises(RungFails):
        hold(scene, "b", 64 * MIB)
    assert scene.memory.ratio == (256, 1, 32, 0, 0)
    assert scene.engine.machine.ledger.touched.ratio == RATIO


def test_one_on_its_way_in_is_no_fault_of_those_that_stand(scene: Scene) -> None:
    held = hold(scene)
    planned = Held(name="b", rung=Rung.LOWMEM, size=64 * MIB, mask=bits_mask(31))
    scene.engine.machine.ledger.reserved(planned)
    assert Lowmem().faults(scene.engine.machine, held) == []
    assert Lowmem().faults(scene.engine.machine, planned) == []
    scene.engine.machine.ledger.reserved(replace(held, standing=True))
    (told,) = Lowmem().faults(scene.engine.machine, planned)
    assert "and 128MiB are needed" in told


def test_a_ratio_that_suffices_stays(scene: Scene) -> None:
    hold(scene, size=16 * MIB)
    assert (scene.memory.writes, scene.engine.machine.ledger.touched.ratio) == ([], None)


def test_a_repair_needs_nothing_free(scene: Scene) -> None:
    held = hold(scene)
    scene.memory.free["DMA32"] = 0
    scene.memory.set(*RATIO)
    hold(scene, standing=True)
    assert scene.memory.protects() == 64 * MIB
    assert Lowmem().faults(scene.engine.machine, held) == []


def test_a_kernel_without_the_setting_gives_back_nothing(scene: Scene) -> None:
    held = hold(scene)
    (scene.folder / "proc/sys/vm/lowmem_reserve_ratio").unlink()
    Lowmem().release(scene.engine.machine, Direct(), held)
    assert scene.engine.machine.ledger.touched.ratio is None


def test_a_setting_that_others_wrote_meanwhile_comes_back_as_it_was_found(scene: Scene) -> None:
    held = hold(scene)
    scene.memory.set(1, 1, 1, 1, 1)
    Lowmem().release(scene.engine.machine, Direct(), held)
    assert scene.memory.ratio == RATIO


def test_the_setting_is_read_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    root = sysroot(scene.folder)
    write_ratio(root, (256, 7, 32, 0, 0))
    assert scene.memory.writes == ["256 7 32 0 0"]
    scene.memory.refuses = "Permission denied"
    with pytest.raises(KernelRefused, match="Permission denied"):
        write_ratio(root, (256, 8, 32, 0, 0))
    monkeypatch.setattr(lowmem, "write_text", lambda *_: None)
    with pytest.raises(NotAsWritten, match=r"reads \(256, 7, 32, 0, 0\) after"):
        write_ratio(root, (256, 8, 32, 0, 0))
