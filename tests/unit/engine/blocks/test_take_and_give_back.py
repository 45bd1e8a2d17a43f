# SPDX-License-Identifier: Apache-2.0
"""Blocks change hands, and come back: also after a refusal, a cancellation, or a killed daemon."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import control_of, make_world, run_job, started
from zoned.engine.blocks.observe import needs_of
from zoned.engine.jobs.control import Cancelled
from zoned.errors import BadSize, BlockBusy, BlockTimeout, Partial, TooFewBlocks, Unsupported
from zoned.model.block import PARKED, RETURNING, HeldBlock
from zoned.model.job import JobKind
from zoned.model.zone import Backing, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

from tests.unit.engine.blocks.stage import NORMAL, POLICY, Stage, make_stage, spec


def test_a_zone_gets_movable_blocks_and_gives_them_back(stage: Stage) -> None:
    progress = stage.create(3)
    assert stage.of("zone:db") == [13, 14, 15]
    assert stage.kinds == NORMAL | dict.fromkeys((13, 14, 15), "Movable")
    assert progress.done == progress.total == 3 * BLOCK
    stage.run(JobKind.DESTROY, name="db")
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks


def test_each_block_is_in_the_ledger_before_it_is_touched(stage: Stage) -> None:
    seen: list[str | None] = []

    def look(number: int) -> None:
        held = stage.engine.machine.ledger.touched.blocks.get(number)
        seen.append(held.former if held else "nothing")

    stage.memory.on_switch = look
    stage.create(2)
    assert seen == ["Normal"] * 4


def test_a_size_is_rounded_up_and_that_is_told(stage: Stage) -> None:
    odd = ZoneSpec(name="db", size=BLOCK + 4096, nodes="1", backing=Backing.BLOCKS)
    progress = stage.run(JobKind.CREATE, spec=odd)
    assert stage.engine.machine.store.zones["db"].spec.size == 2 * BLOCK
    assert any("no whole number" in note for note in progress.notes)


@pytest.mark.parametrize("error", [BlockBusy, BlockTimeout])
def test_another_block_is_taken_where_one_does_not_go(
    stage: Stage, error: type[BlockBusy | BlockTimeout]
) -> None:
    stage.memory.busy[14] = [error("block 14 holds on")]
    progress = stage.create(3)
    assert stage.of("zone:db") == [12, 13, 15]
    assert stage.kinds[14] == "Normal"
    assert any("block 14 holds on" in note for note in progress.notes)


def test_all_goes_back_where_too_few_go(stage: Stage) -> None:
    for number in range(8, 14):
        stage.memory.busy[number] = [BlockBusy("no"), BlockBusy("no")]
    with pytest.raises(TooFewBlocks, match="gave 2 of 3"):
        stage.create(3)
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks
    assert not stage.engine.machine.store.zones


def test_blocks_that_could_not_go_are_tried_once_more(stage: Stage) -> None:
    for number in range(8, 14):
        stage.memory.busy[number] = [BlockBusy("no")]
    stage.create(3)
    assert len(stage.of("zone:db")) == 3
    assert sorted(stage.kinds.values()) == ["Movable"] * 3 + ["Normal"] * 5


def test_more_than_the_kernel_can_spare_is_refused_untouched(stage: Stage) -> None:
    with pytest.raises(TooFewBlocks, match="6 of 7"):
        stage.create(7)
    with pytest.raises(BadSize):
        stage.create(9)
    with pytest.raises(TooFewBlocks, match="low memory"):
        stage.run(JobKind.PARK, node=0, size=BLOCK)
    assert not stage.memory.done


def test_without_hotplug_there_are_no_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = started(make_world(tmp_path), POLICY)
    with pytest.raises(Unsupported, match="no memory blocks"):
        run_job(engine, JobKind.CREATE, spec=spec(1))
    with pytest.raises(Unsupported, match="no memory blocks"):
        run_job(engine, JobKind.PARK, node=1, size=BLOCK)
    engine.create(ZoneSpec(name="db", size=BLOCK))


def test_a_cancelled_creation_gives_all_back(stage: Stage) -> None:
    control = control_of()
    _, body = stage.engine.prepare(JobKind.CREATE, {"spec": spec(3)})
    switched: list[int] = []

    def third(number: int) -> None:
        switched.append(number)
        if len(switched) == 3:
            control.cancel()

    stage.memory.on_switch = third
    with pytest.raises(Cancelled):
        body(control)
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks


def test_parked_blocks_are_offline_and_the_first_to_be_taken(stage: Stage) -> None:
    stage.run(JobKind.PARK, node=1, size=2 * BLOCK)
    assert stage.of(PARKED) == [14, 15]
    assert stage.kinds == NORMAL | {14: "-", 15: "-"}
    stage.create(3)
    assert stage.of("zone:db") == [13, 14, 15]
    stage.run(JobKind.DESTROY, name="db")
    assert stage.of(PARKED) == [14, 15]
    assert stage.kinds == NORMAL | {14: "-", 15: "-"}
    stage.run(JobKind.UNPARK, node=1, size=BLOCK)
    assert stage.of(PARKED) == [14]
    stage.run(JobKind.UNPARK, node=1)
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks


def test_a_zone_from_the_policys_pool_leaves_it_as_large_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(tmp_path, monkeypatch, replace(POLICY, parked={1: 2 * BLOCK}))

    def lacking() -> dict[int, int]:
        return dict(needs_of(stage.engine.machine).parked)

    assert lacking() == {1: 2}
    stage.run(JobKind.PARK, node=1, size=2 * BLOCK, keep=True)
    stage.create(1)
    assert lacking() == {}
    stage.run(JobKind.DESTROY, name="db")
    assert (stage.of(PARKED), lacking()) == ([14, 15], {})


def test_nothing_becomes_the_kernels_on_a_node_for_movable_memory_alone(stage: Stage) -> None:
    stage.create(2)
    stage.run(JobKind.PARK, node=1, size=BLOCK)
    stage.engine.machine.ledger.movable_only_is(frozenset({1}))
    stage.memory.done.clear()
    stage.run(JobKind.DESTROY, name="db")
    stage.run(JobKind.UNPARK, node=1)
    assert stage.memory.done == ["13 online_movable"]
    assert stage.kinds == NORMAL | dict.fromkeys((13, 14, 15), "Movable")
    assert not stage.engine.machine.ledger.touched.blocks


@pytest.mark.parametrize("keep", [False, True])
def test_what_was_parked_before_a_failure_is_kept_or_returned(stage: Stage, *, keep: bool) -> None:
    for number in range(8, 14):
        stage.memory.busy[number] = [BlockBusy("no"), BlockBusy("no")]
    with pytest.raises(Partial if keep else TooFewBlocks):
        stage.run(JobKind.PARK, node=1, size=3 * BLOCK, keep=keep)
    assert stage.of(PARKED) == ([14, 15] if keep else [])
    assert stage.kinds == (NORMAL | {14: "-", 15: "-"} if keep else NORMAL)


def test_a_zone_grows_and_shrinks_by_whole_blocks(stage: Stage) -> None:
    stage.create(1)
    stage.run(JobKind.RESIZE, name="db", size=3 * BLOCK)
    assert stage.of("zone:db") == [13, 14, 15]
    stage.run(JobKind.RESIZE, name="db", size=BLOCK + 1)
    assert len(stage.of("zone:db")) == 2
    assert sorted(stage.kinds.values()) == ["Movable"] * 2 + ["Normal"] * 6


def test_a_block_that_does_not_go_back_stays_usable_and_owed(stage: Stage) -> None:
    stage.create(2)
    stage.memory.busy[15] = [BlockBusy("block 15 holds on")]
    stage.run(JobKind.DESTROY, name="db")
    assert stage.of(RETURNING) == [15]
    assert stage.kinds == NORMAL | {15: "Movable"}
    stage.engine.tick()
    assert [alert.code for alert in stage.engine.alerts] == ["blocks-owed"]
    stage.run(JobKind.GIVE_BACK)
    assert stage.kinds == NORMAL
    stage.engine.tick()
    assert not stage.engine.alerts


def test_after_a_reboot_a_zone_gets_its_blocks_again(stage: Stage) -> None:
    stage.create(2)
    for number in (14, 15):
        stage.memory.remove(number)
        stage.memory.add(1, number, zone="Normal")
    stage.engine.machine.ledger.blocks_returned([14, 15])
    engine = stage.restart()
    assert [alert.code for alert in engine.alerts] == ["blocks-missing"]
    stage.run(JobKind.FILL, name="db")
    assert stage.of("zone:db") == [14, 15]
    engine.tick()
    assert not engine.alerts


def test_what_somebody_else_brought_online_is_parked_no_more(stage: Stage) -> None:
    stage.run(JobKind.PARK, node=1, size=2 * BLOCK)
    stage.memory.remove(15)
    stage.memory.add(1, 15, zone="Normal")
    stage.restart()
    assert stage.of(PARKED) == [14]


def test_reset_brings_everything_back(stage: Stage) -> None:
    stage.run(JobKind.PARK, node=1, size=BLOCK)
    stage.create(2)
    assert stage.engine.reset() == []
    assert stage.kinds == NORMAL
    assert not stage.engine.machine.ledger.touched.blocks


def test_what_the_ledger_alone_knows_is_struck_off(stage: Stage) -> None:
    """Killed between the ledger and the kernel: the block was never touched."""
    entry = HeldBlock(number=12, owner="zone:db", former="Normal")
    stage.engine.machine.ledger.blocks_taken([entry])
    stage.restart()
    assert not stage.engine.machine.ledger.touched.blocks
    assert stage.kinds == NORMAL


def test_what_was_owed_and_not_taken_again_is_owed_still(stage: Stage) -> None:
    stage.create(1)
    stage.memory.busy[15] = [BlockBusy("block 15 holds on")]
    stage.run(JobKind.DESTROY, name="db")
    entry = stage.engine.machine.ledger.touched.blocks[15]
    stage.engine.machine.ledger.blocks_taken([replace(entry, owner="zone:db", emptied=False)])
    stage.restart()
    assert stage.of(RETURNING) == [15]
    stage.run(JobKind.GIVE_BACK)
    assert stage.kinds == NORMAL


def test_a_zone_keeps_its_blocks_where_the_ledger_does_not_tell(stage: Stage) -> None:
    """Early versions did not write whether a block was offline in its owner's hands."""
    stage.create(2)
    path = next(stage.world.folder.rglob("ledger.json"))
    data = json.loads(path.read_text())
    data["blocks"] = [each[:4] for each in data["blocks"]]
    path.write_text(json.dumps(data))
    stage.restart()
    assert stage.of("zone:db") == [14, 15]
