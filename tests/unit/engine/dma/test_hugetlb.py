# SPDX-License-Identifier: Apache-2.0
"""Huge pages below a device's limit: made of blocks taken for it, looked up, and given back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.scene import DEVICE, Killed, Scene, make_scene
from tests.unit.fake_huge import HUGE
from tests.unit.fake_memory import BLOCK
from tests.unit.fake_sys import MEMORY, write
from zoned.engine.dma import hugetlb
from zoned.engine.dma.counted import counted_bytes
from zoned.engine.dma.hugetlb import Hugetlb
from zoned.engine.zones import capacity_of
from zoned.errors import (
    BlockBusy,
    KernelRefused,
    NoCapacity,
    TooFewBlocks,
    TryLater,
    Unsupported,
)
from zoned.kernel.hugetlb import read_pool
from zoned.model.block import BlockWord, HeldBlock
from zoned.model.dma.held import Held
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung
from zoned.model.policy import SystemReserve

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = Hugetlb()
BITS = 31


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return make_scene(tmp_path, monkeypatch)


def reserve(scene: Scene, mib: int = 100, bits: int = BITS, *devices: str) -> Held:
    return scene.reserve(HOLDER, Rung.HUGETLB, mib, bits, *devices, node=1)


def pool(scene: Scene) -> tuple[int, int]:
    """Return the size of the kernel's pool, which all its pages fit in, and how many are free."""
    found = read_pool(scene.machine.root, 1, HUGE)
    assert found is not None
    assert not found.surplus
    return found.lasting, found.free


def pages(scene: Scene) -> list[int]:
    found = scene.machine.pools.known("scsi")
    return [] if found is None else sorted(span.start // HUGE for span in found.spans)


def test_pages_are_made_of_a_block_below_the_limit(scene: Scene) -> None:
    held = reserve(scene)
    assert (held.blocks, held.node, held.page, held.pool) == ((14,), 1, HUGE, None)
    assert scene.kinds == {14: "Movable"}
    assert scene.owned == {14: "dma:scsi"}
    assert pages(scene) == list(range(14 * 64, 14 * 64 + 50))
    assert held.spans == (Span(14 * BLOCK, 100 << 20),)
    assert pool(scene) == (54, 0)
    assert scene.machine.ledger.touched.huge == {(1, HUGE): 50}
    assert HOLDER.faults(scene.machine, held) == []

    scene.release(HOLDER)
    assert (scene.kinds, scene.owned, pages(scene)) == ({}, {}, [])
    assert pool(scene) == (4, 0)
    assert scene.machine.ledger.touched.huge == {}


def test_what_the_kernel_keeps_of_a_block_is_thought_of(scene: Scene) -> None:
    held = reserve(scene, 128)
    assert held.blocks == (13, 14)
    assert sum(span.size for span in held.spans) == 128 << 20
    assert pool(scene) == (68, 0)


def test_the_last_block_is_tried_without_what_the_kernel_keeps(scene: Scene) -> None:
    scene.memory.busy = {number: [BlockBusy("no")] * 9 for number in range(9, 14)}
    held = reserve(scene, 124)
    assert held.blocks == (14,)
    assert pool(scene) == (66, 0)


def test_too_few_pages_are_no_success(scene: Scene) -> None:
    scene.memory.busy = {number: [BlockBusy("no")] * 9 for number in range(1, 14)}
    with pytest.raises(TooFewBlocks, match="2 huge pages of 2MiB could not be had"):
        reserve(scene, 128)
    assert (scene.kinds, scene.owned, pages(scene)) == ({}, {}, [])
    assert pool(scene) == (4, 0)
    assert scene.machine.ledger.touched.huge == {}


def test_pages_that_lie_elsewhere_are_not_kept(scene: Scene) -> None:
    """Somebody has other movable memory on the node, and pages of before are free."""
    scene.memory.remove(9)
    scene.memory.add(1, 9, zone="Movable")
    scene.machine.ledger.blocks_taken([HeldBlock(number=9, owner="zone:db", former="DMA32")])
    scene.huge.add([40 * HUGE, 41 * HUGE])
    held = reserve(scene)
    assert held.spans == (Span(14 * BLOCK, 100 << 20),)
    assert pool(scene) == (56, 2)
    scene.release(HOLDER)
    assert pool(scene) == (6, 2)
    assert (scene.kinds, scene.owned) == ({9: "Movable"}, {9: "zone:db"})


def test_movable_blocks_of_others_far_above_do_not_starve_it(scene: Scene) -> None:
    scene.huge.supply = lambda: iter(at * HUGE for at in range(3000, 3100))
    with pytest.raises(TooFewBlocks):
        reserve(scene)
    assert pool(scene) == (4, 0)


def test_a_restart_fetches_the_same_pages(scene: Scene) -> None:
    held = reserve(scene)
    scene.restart()
    assert pool(scene) == (54, 50)
    assert HOLDER.faults(scene.machine, held) == ["its huge pages are not held"]
    assert scene.again(HOLDER, DEVICE).spans == held.spans
    assert pool(scene) == (54, 0)
    assert HOLDER.faults(scene.machine, held) == []


def test_pages_that_others_took_meanwhile_are_made_good(scene: Scene) -> None:
    held = reserve(scene)
    scene.restart()
    for _ in range(3):
        scene.huge.used.add(scene.huge.free.pop())
    scene.huge.tell()
    again = scene.again(HOLDER)
    assert sum(span.size for span in again.spans) == held.size
    assert pool(scene) == (57, 0)
    assert again.pool is None
    scene.release(HOLDER)
    assert pool(scene) == (7, 0)


def test_a_repair_that_fails_leaves_what_stands(scene: Scene) -> None:
    reserve(scene)
    scene.restart()
    for _ in range(20):
        scene.huge.used.add(scene.huge.free.pop())
    scene.huge.tell()
    with pytest.raises(TooFewBlocks, match="8 huge pages"):
        scene.again(HOLDER)
    assert scene.on_record.standing
    assert scene.on_record.pool is None
    assert len(pages(scene)) == 42
    assert HOLDER.faults(scene.machine, scene.on_record) == ["84MiB are held instead of 100MiB"]


def test_a_page_that_moved_is_found_and_replaced(scene: Scene) -> None:
    held = reserve(scene)
    file = scene.huge.files[-1]
    old, new = file.pages[0], 4000 * HUGE
    file.pages[0] = new
    scene.huge.used ^= {old, new}
    assert HOLDER.faults(scene.machine, held) == [
        f"a huge page lies at {new:#x} now, above the limit"
    ]
    file.pages[0] = 3 * HUGE
    scene.huge.used ^= {new, 3 * HUGE}
    assert HOLDER.faults(scene.machine, held) == [f"a huge page has moved, to {3 * HUGE:#x}"]
    again = scene.again(HOLDER)
    assert sum(span.size for span in again.spans) == held.size
    assert 3 not in pages(scene)
    assert HOLDER.faults(scene.machine, again) == []


def test_pages_in_buffers_count_and_stay(scene: Scene) -> None:
    held = reserve(scene)
    lent = Span(held.spans[0].start, 10 * HUGE)
    found = scene.machine.pools.known("scsi")
    assert found is not None
    buffer = scene.huge.files[found.lend([lent])]
    scene.lease(lent)
    assert HOLDER.faults(scene.machine, held) == []
    assert scene.again(HOLDER).spans == held.spans
    scene.restart()
    assert scene.again(HOLDER).spans == held.spans
    assert len(pages(scene)) == 40
    with pytest.raises(TryLater, match="programs have buffers of reservation scsi"):
        scene.release(HOLDER)
    scene.machine.ledger.lease_ended(1)
    buffer.let_go()
    scene.release(HOLDER)
    assert pool(scene) == (4, 0)


def test_blocks_are_looked_at(scene: Scene) -> None:
    held = reserve(scene)
    write(scene.world.folder, {f"{MEMORY}/memory14/valid_zones": "DMA32"})
    assert HOLDER.faults(scene.machine, held) == [
        "memory block 14 is online DMA32, and should be online as movable memory"
    ]
    scene.machine.ledger.blocks_returned([14])
    assert HOLDER.faults(scene.machine, held) == ["memory block 14 is not held any more"]


def test_a_block_that_somebody_took_offline_comes_back(scene: Scene) -> None:
    """The kernel moved its pages elsewhere."""
    held = reserve(scene)
    file = scene.huge.files[-1]
    away = {place: (3000 + place) * HUGE for place in file.pages}
    scene.huge.used = (scene.huge.used - set(file.pages.values())) | set(away.values())
    file.pages = away
    scene.memory.switch(scene.machine.root).switch(14, BlockWord.OFFLINE, deadline=99)
    faults = HOLDER.faults(scene.machine, held)
    assert faults[0].startswith("memory block 14 is offline DMA32 Movable, and should be online")
    assert "above the limit" in faults[1]
    again = scene.again(HOLDER)
    assert again.spans == held.spans
    assert HOLDER.faults(scene.machine, again) == []
    assert "memory block 14 was taken offline by somebody else" in scene.notes
    assert pool(scene) == (54, 0)


def move_to_other_node(scene: Scene) -> None:
    """Do what the kernel does where somebody takes the block offline."""
    file, other = scene.huge.files[-1], scene.huge.other
    assert other is not None
    away = {place: (2 * 64 + place) * HUGE for place in file.pages}
    scene.huge.used -= set(file.pages.values())
    other.used |= set(away.values())
    file.pages = away
    scene.huge.tell()
    other.tell()
    scene.memory.switch(scene.machine.root).switch(14, BlockWord.OFFLINE, deadline=99)


def pools(scene: Scene) -> list[tuple[int, int]]:
    found = [read_pool(scene.machine.root, node, HUGE) for node in (0, 1)]
    return [(each.lasting, each.free) for each in found if each]


def test_pages_that_went_to_another_node_leave_its_pool(scene: Scene) -> None:
    held = reserve(scene)
    move_to_other_node(scene)
    assert pools(scene) == [(52, 1), (4, 0)]
    assert scene.again(HOLDER).spans == held.spans
    assert pools(scene) == [(2, 1), (54, 0)]
    move_to_other_node(scene)
    scene.release(HOLDER)
    assert pools(scene) == [(2, 1), (4, 0)]
    assert (scene.kinds, scene.owned) == ({}, {})


def test_another_node_where_the_first_has_too_little(scene: Scene) -> None:
    held = Held(name="scsi", rung=Rung.HUGETLB, size=100 << 20, mask=(1 << 29) - 1, node=1)
    scene.huge.node = 0
    scene.huge.tell()
    scene.machine.ledger.reserved(held)
    found = HOLDER.hold(scene.machine, scene.control, held)
    assert (found.node, found.blocks) == (0, (3,))


def test_what_zones_were_promised_stays(scene: Scene) -> None:
    reserved = SystemReserve(default=8 * BLOCK)
    scene.machine.policy = replace(scene.machine.policy, reserve=reserved)
    with pytest.raises(NoCapacity, match="reservation scsi needs 128MiB"):
        reserve(scene)


def test_no_block_lies_below_the_limit(scene: Scene) -> None:
    with pytest.raises(TooFewBlocks, match="no memory block lies where"):
        reserve(scene, 16, 26)


def test_no_huge_page_fits_in_a_block(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugetlb, "require_block_size", lambda _: 1 << 20)
    with pytest.raises(Unsupported, match="no huge pages that fit"):
        reserve(scene)


def test_the_kernel_refuses_more_pages(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> None:
        if int(text) > 4:
            raise KernelRefused("no")
        scene.huge.resize(path, text)

    monkeypatch.setattr("zoned.kernel.hugetlb.write_text", refuse)
    with pytest.raises(KernelRefused):
        reserve(scene)
    assert (scene.kinds, scene.owned) == ({}, {})


def test_zones_are_not_promised_these_pages(scene: Scene) -> None:
    reserve(scene)
    found = capacity_of(scene.machine)[1]
    assert found.reserved == 100 << 20
    held = scene.on_record
    assert counted_bytes([held, replace(held, name="b"), replace(held, rung=Rung.BLOCKS)]) == {
        1: 200 << 20
    }


def test_two_reservations_share_a_pool_of_the_kernel(scene: Scene) -> None:
    reserve(scene)
    first = scene.machine.ledger.touched.reservations["scsi"]
    other = replace(first, name="net", standing=False, spans=(), blocks=(), page=None)
    scene.machine.ledger.reserved(other)
    second = HOLDER.hold(scene.machine, scene.control, other)
    scene.machine.ledger.reserved(replace(second, standing=True))
    assert second.blocks == (13,)
    assert pool(scene) == (104, 0)
    scene.release(HOLDER)
    assert pool(scene) == (54, 0)
    assert scene.machine.ledger.touched.huge == {(1, HUGE): 50}
    assert HOLDER.faults(scene.machine, second) == []
    assert scene.owned == {13: "dma:net"}


def test_killed_at_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next daemon takes down what does not stand, and makes it anew."""
    for point in range(400):
        with monkeypatch.context() as patch:
            scene = make_scene(tmp_path / str(point), patch)
            scene.left = point
            try:
                reserve(scene)
                scene.release(HOLDER)
                came_through = True
            except Killed:
                came_through = False
            for file in scene.huge.files:
                if file.open:
                    file.close()
            scene.machine.pools = type(scene.machine.pools)(scene.huge.pool)
            scene.restart()
            if "scsi" in scene.machine.ledger.touched.reservations:
                scene.release(HOLDER)
            scene.tidy()
            assert (scene.kinds, scene.owned) == ({}, {}), point
            assert pool(scene) == (4, 0), point
            assert scene.machine.ledger.touched.huge == {}, point
            held = reserve(scene)
            assert HOLDER.faults(scene.machine, held) == []
            if came_through:
                assert point > 15
                return
    pytest.fail("it never came through")
