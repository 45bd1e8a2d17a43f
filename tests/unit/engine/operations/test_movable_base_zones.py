# SPDX-License-Identifier: Apache-2.0
"""Base zones of movable memory alone, as jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.operations.base_scene import ADD, REMOVE, Scene, add, kinds, marked
from tests.unit.fake_memory import BLOCK
from tests.unit.fakes import MIB, control_of
from zoned.engine.base import target
from zoned.engine.jobs.control import Suspended
from zoned.errors import BlockBusy, BlockRefused, MovableOnly, Partial, UsageError
from zoned.kernel import dax
from zoned.model.block import PARKED, HeldBlock
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from zoned.kernel.root import Root
    from zoned.model.base import DaxDevice

MOVABLE = ("16 online_movable", "17 online_movable", "18 online_movable", "19 online_movable")


def wish(scene: Scene, **policy: Any) -> None:
    """Bring a policy in force."""
    machine = scene.engine.machine
    machine.policy = replace(machine.policy, **policy)


def test_no_block_is_the_kernels(plugged: Scene) -> None:
    assert marked(plugged) == set()
    assert add(plugged) == "add base zone 2 of movable memory alone"
    assert tuple(plugged.memory.done) == MOVABLE
    assert marked(plugged) == {2}


def test_restart_leaves_it_so_and_new_blocks_are_movable(movable: Scene) -> None:
    movable.restart()
    assert marked(movable) == {2}
    movable.memory.add(2, 20, 21)
    movable.run(ADD, "2", blocks="20-21")
    assert kinds(movable) == "MMMMMM"
    assert not movable.held()


def test_cut_off_half_way_and_taken_up_again(plugged: Scene) -> None:
    plugged.memory.on_switch = lambda number: plugged.control.suspend() if number == 17 else None
    request, body = plugged.engine.prepare(ADD, {"base": "2", "movable_only": True})
    plugged.control = control_of()
    with pytest.raises(Suspended):
        body(plugged.control)
    plugged.memory.on_switch = lambda _: None
    plugged.restart()
    plugged.engine.bodies()[ADD](request)(control_of())
    assert kinds(plugged) == "MMMM"
    assert marked(plugged) == {2}


def test_parked_blocks_stay(plugged: Scene) -> None:
    parked = HeldBlock(number=17, owner=PARKED, former="Normal")
    plugged.engine.machine.ledger.blocks_taken([parked])
    add(plugged)
    assert kinds(plugged) == "M-MM"


def test_what_the_kernel_has_already_is_made_movable(scene: Scene) -> None:
    scene.memory.add(2, 16, zone="Normal")
    scene.memory.add(2, 17, zone="Movable")
    scene.memory.add(2, 18)
    scene.tell_kernel_memory()
    add(scene)
    assert kinds(scene) == "MMM"
    assert marked(scene) == {2}
    assert not scene.held()


def test_what_does_not_go_is_told_and_no_zone_relies_on_it(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, zone="Normal")
    scene.memory.busy[16] = [BlockBusy("16 has slab")]
    with pytest.raises(Partial, match="memory blocks 16 of node 2 stay"):
        add(scene)
    scene.tell_kernel_memory()
    assert kinds(scene) == "KM"
    assert marked(scene) == {2}
    with pytest.raises(MovableOnly):
        scene.engine.create(ZoneSpec(name="db", size=MIB, nodes="2"))
    add(scene)
    assert kinds(scene) == "MM"


def test_zone_is_not_left_on_movable_memory_alone(scene: Scene) -> None:
    scene.memory.add(2, 16, zone="Normal")
    scene.memory.add(2, 17)
    scene.tell_kernel_memory()
    scene.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="2"))
    with pytest.raises(MovableOnly, match="zone db would be left") as caught:
        scene.engine.prepare(ADD, {"base": "2", "movable_only": True})
    assert caught.value.hint == "zonectl move db --nodes 0,2"
    assert marked(scene) == set()
    assert kinds(scene) == "K-"


def test_zone_with_another_node_is_not_in_the_way(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, zone="Normal")
    scene.tell_kernel_memory()
    scene.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="0,2"))
    add(scene)
    assert kinds(scene) == "MM"


def test_zone_that_lost_its_node_is_not_in_the_way(plugged: Scene) -> None:
    store = plugged.engine.machine.store
    plugged.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="0"))
    store.put(replace(store.zones["db"], shares={7: BLOCK}))
    add(plugged)
    assert kinds(plugged) == "MMMM"


def test_zone_that_comes_while_the_last_kernel_block_goes(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, zone="Normal")
    scene.tell_kernel_memory()
    refusals = []

    def create(number: int) -> None:
        with pytest.raises(MovableOnly) as caught:
            scene.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="2"))
        refusals.append((number, caught.value.code))

    scene.memory.on_switch = create
    add(scene)
    assert refusals[0] == (17, "movable-only")
    assert not scene.engine.machine.store.zones


def test_zone_that_comes_between_the_request_and_the_job(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, zone="Normal")
    scene.tell_kernel_memory()
    _, body = scene.engine.prepare(ADD, {"base": "2", "movable_only": True})
    scene.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="2"))
    with pytest.raises(MovableOnly):
        body(control_of())
    assert kinds(scene) == "KK"
    assert marked(scene) == set()


# What is remembered, and for how long


def test_adding_it_the_other_way_is_refused(movable: Scene) -> None:
    with pytest.raises(UsageError, match="stays so until it is removed") as caught:
        movable.engine.prepare(ADD, {"base": "2"})
    assert "--movable-only" in caught.value.hint
    wish(movable, movable_only=True)
    movable.engine.prepare(ADD, {"base": "2"})


def test_what_keeps_memory_for_the_kernel_can_be_an_ordinary_one_again(scene: Scene) -> None:
    scene.memory.add(2, 16, 17, zone="Normal")
    scene.memory.busy[16] = [BlockBusy("16 has slab")]
    with pytest.raises(Partial):
        add(scene)
    scene.tell_kernel_memory()
    scene.run(ADD, "2")
    assert kinds(scene) == "KM"
    assert marked(scene) == set()
    scene.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="2"))


def test_so_can_what_did_not_come_at_all(plugged: Scene) -> None:
    plugged.memory.busy[16] = [BlockRefused("holes")]
    with pytest.raises(BlockRefused):
        add(plugged)
    assert (kinds(plugged), marked(plugged)) == ("----", {2})
    plugged.run(ADD, "2")
    assert (kinds(plugged), marked(plugged)) == ("KMMM", set())


def test_removal_forgets_it(movable: Scene) -> None:
    movable.run(REMOVE, "2")
    assert marked(movable) == set()
    movable.restart()
    assert marked(movable) == set()
    movable.run(ADD, "2")
    assert kinds(movable) == "KMMM"


@pytest.mark.parametrize("keep", [True, False])
def test_removal_that_fails_does_not(movable: Scene, *, keep: bool) -> None:
    movable.memory.busy[17] = [BlockRefused("holes")]
    with pytest.raises((Partial, BlockRefused)):
        movable.run(REMOVE, "2", keep=keep)
    assert kinds(movable) == ("MM--" if keep else "MMMM")
    assert marked(movable) == {2}


def test_pulling_forgets_it(movable: Scene) -> None:
    movable.engine.tick()
    assert marked(movable) == {2}
    movable.memory.remove(16, 17, 18, 19)
    # What is new and has no node yet may belong there.
    movable.memory.add(None, 20)
    movable.engine.tick()
    assert movable.engine.machine.ledger.touched.movable_only == {2}
    movable.memory.remove(20)
    movable.engine.tick()
    assert not movable.engine.machine.ledger.touched.movable_only


# Regions, and nodes with other memory


def test_region_is_a_base_zone_until_it_is_for_programs_again(scene: Scene) -> None:
    scene.tell_kernel_memory()
    add(scene, "dax0.0")
    assert kinds(scene) == "MMMM"
    assert marked(scene) == {2}
    scene.run(REMOVE, "dax0.0")
    assert not scene.engine.machine.ledger.touched.movable_only


def test_region_that_leaves_others_there(movable: Scene) -> None:
    add(movable, "dax0.0")
    movable.run(REMOVE, "dax0.0")
    assert kinds(movable) == "MMMM"
    assert marked(movable) == {2}


def test_region_beside_memory_of_the_kernels(scene: Scene) -> None:
    scene.memory.add(2, 16, zone="Normal")
    scene.tell_kernel_memory()
    scene.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="2"))
    add(scene, "dax0.0")
    assert kinds(scene) == "KMMMM"
    assert marked(scene) == set()
    assert "node 2 has other memory that the kernel uses" in scene.notes()


def test_region_that_is_partly_the_kernels(scene: Scene) -> None:
    scene.memory.add(2, 16, zone="Normal")
    scene.run(ADD, "dax0.0")
    assert kinds(scene) == "KKMMM"
    add(scene, "dax0.0")
    assert kinds(scene) == "KMMMM"


def test_memory_of_the_start_stays_the_kernels(scene: Scene) -> None:
    scene.memory.add(0, 2, 3, 4, 5, 6, 7, 8, 9)
    scene.tell_kernel_memory()
    add(scene, "0")
    assert [scene.memory.kinds()[number] for number in range(3)] == ["Normal", "Normal", "Movable"]
    assert scene.memory.kinds()[9] == "Movable"
    assert marked(scene) == set()


def test_node_of_the_start_is_never_one(scene: Scene) -> None:
    """With movable_node on the kernel's command line it may look like one."""
    scene.memory.add(2, 15, zone="Movable")
    add(scene)
    assert marked(scene) == set()


def test_region_on_a_node_of_the_start(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_dax(root: Root) -> tuple[DaxDevice, ...]:
        return (replace(scene.read_dax(root)[0], node=0),)

    for module in (dax, target):
        monkeypatch.setattr(module, "read_dax", read_dax)
    scene.memory.add(0, 64, 65, zone="Normal")
    scene.mode = scene.mode.SYSTEM_RAM
    add(scene, "dax0.0")
    assert list(scene.memory.kinds().values()) == ["Normal", "Normal", "Movable", "Movable"]
    assert marked(scene) == set()


# The policy


def test_policy_wants_all_of_them_so(plugged: Scene) -> None:
    wish(plugged, movable_only=True)
    assert plugged.run(ADD, "2", blocks="16-19").what == "add base zone 2"
    assert kinds(plugged) == "MMMM"
    assert marked(plugged) == {2}
    wish(plugged, movable_only=False)
    plugged.memory.add(2, 20)
    plugged.run(ADD, "2", blocks="20")
    assert kinds(plugged) == "MMMMM"


def test_policy_leaves_what_the_kernel_has_already(scene: Scene) -> None:
    scene.memory.add(2, 16, zone="Normal")
    scene.memory.add(2, 17, 18, 19, 20)
    wish(scene, movable_only=True)
    scene.run(ADD, "2", blocks="17-20")
    assert kinds(scene) == "KMMMM"
    assert marked(scene) == set()
    assert not scene.notes().startswith("node 2 has other")
    scene.run(ADD, "2")
    assert kinds(scene) == "MMMMM"
    assert marked(scene) == {2}


def test_policy_leaves_no_zone_without_memory_for_the_kernel(plugged: Scene) -> None:
    """The zone is from before a reboot, and its node comes back now."""
    machine = plugged.engine.machine
    plugged.engine.create(ZoneSpec(name="db", size=BLOCK, nodes="0"))
    machine.store.put(replace(machine.store.zones["db"], shares={2: BLOCK}))
    wish(plugged, movable_only=True)
    plugged.run(ADD, "2", blocks="16-19")
    assert kinds(plugged) == "KMMM"
    assert "zone db has node 2 alone and needs memory for the kernel" in plugged.notes()
    assert marked(plugged) == set()


def test_reset_forgets_what_was_to_be_movable(movable: Scene) -> None:
    assert marked(movable) == {2}
    assert movable.engine.reset() == []
    assert marked(movable) == set()
    assert kinds(movable) == "MMMM"
    movable.memory.add(2, 20)
    movable.run(ADD, "2")
    assert kinds(movable) == "MMMMK"
