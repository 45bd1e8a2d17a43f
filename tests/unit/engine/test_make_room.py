# SPDX-License-Identifier: Apache-2.0
"""Making room before a limit is lowered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fakes import GIB, MIB, FakeGroup, FakeGroups, make_world
from zoned.engine.execute import execute
from zoned.engine.make_room import SLICE, make_room
from zoned.errors import BelowUse, KernelRefused, TryLater
from zoned.model.action import ChangeGroup
from zoned.model.zone import Group, Limits

if TYPE_CHECKING:
    from pathlib import Path

FULL = Limits(max=GIB, min=GIB)
HALF = Limits(max=512 * MIB, min=512 * MIB)


def groups(used: int, held: int = 0) -> FakeGroups:
    found = FakeGroups()
    found.there, found.minimum = True, GIB
    found.made["db"] = FakeGroup(FULL, used=used, held=held)
    return found


def seen(fake: FakeGroups) -> Group:
    group = fake.group("db")
    assert group is not None
    return group


def change(folder: Path, fake: FakeGroups, limits: Limits = HALF) -> None:
    world = make_world(folder)
    world.groups = fake
    execute(world.machine(), ChangeGroup(zone="db", limits=limits))


def reclaims(fake: FakeGroups) -> list[int]:
    return [int(call.split()[2]) for call in fake.failures.calls if call.startswith("reclaim")]


@pytest.mark.parametrize(
    ("used", "wanted"),
    [(512 * MIB, HALF), (0, HALF), (GIB, replace(HALF, max=None)), (GIB, replace(HALF, max=GIB))],
)
def test_nothing_to_do(used: int, wanted: Limits) -> None:
    fake = groups(used)
    before = seen(fake)
    make_room(fake, before, wanted)
    make_room(fake, replace(before, used=None), wanted)
    assert not reclaims(fake)
    assert seen(fake).limits == FULL


def test_use_goes_down_slice_by_slice(tmp_path: Path) -> None:
    fake = groups(700 * MIB)
    change(tmp_path, fake)
    assert reclaims(fake) == [SLICE, SLICE, 60 * MIB]
    assert fake.made["db"].used == 512 * MIB
    assert fake.made["db"].limits == HALF


def test_soft_limits_come_first_and_protection_does_not_rise() -> None:
    fake = groups(700 * MIB)
    make_room(fake, seen(fake), replace(HALF, min=2 * GIB))
    calls = fake.failures.calls
    assert calls.index(f"set_soft_limits db {512 * MIB} {GIB}") < calls.index(f"reclaim db {SLICE}")


def test_what_cannot_be_reclaimed_keeps_the_old_limit(tmp_path: Path) -> None:
    fake = groups(700 * MIB, held=600 * MIB)
    with pytest.raises(BelowUse, match=r"uses 600MiB.* to 512MiB; its limit stays 1GiB") as error:
        change(tmp_path, fake)
    assert error.value.hint
    assert fake.made["db"].limits == FULL
    assert len(reclaims(fake)) == 2 + 3
    assert "change db" not in fake.failures.calls


def test_members_that_take_again_what_was_reclaimed_end_it(tmp_path: Path) -> None:
    fake = groups(700 * MIB)
    sizes = iter([650, 690, 640, 690] + [650, 690] * 50)

    def grow(group: FakeGroup) -> None:
        group.used = next(sizes) * MIB

    fake.on_reclaim = grow
    with pytest.raises(BelowUse):
        change(tmp_path, fake)
    assert len(reclaims(fake)) == 6
    assert fake.made["db"].limits == FULL


def test_a_zone_that_goes_away_meanwhile_has_room() -> None:
    fake = groups(700 * MIB)
    before = seen(fake)

    def vanish(_: FakeGroup) -> None:
        fake.made.clear()

    fake.on_reclaim = vanish
    make_room(fake, before, HALF)
    assert len(reclaims(fake)) == 1


@pytest.mark.parametrize("method", ["reclaim", "change"])
def test_soft_limits_come_back_after_any_failure(tmp_path: Path, method: str) -> None:
    fake = groups(700 * MIB)
    fake.failures.at(method, KernelRefused("no"))
    with pytest.raises(KernelRefused):
        change(tmp_path, fake)
    assert fake.made["db"].limits == FULL


def test_growth_between_reclaim_and_the_write_keeps_the_old_limits(tmp_path: Path) -> None:
    fake = groups(700 * MIB)
    fake.failures.at("change", BelowUse("grew again"))
    with pytest.raises(BelowUse, match="grew again"):
        change(tmp_path, fake)
    assert fake.made["db"].limits == FULL


def test_a_group_that_is_gone_is_made_by_the_next_look(tmp_path: Path) -> None:
    fake = groups(0)
    fake.made.clear()
    with pytest.raises(TryLater):
        change(tmp_path, fake)


def test_without_protection_soft_limits_are_let_alone(tmp_path: Path) -> None:
    fake = groups(700 * MIB, held=600 * MIB)
    fake.protects = False
    with pytest.raises(BelowUse):
        change(tmp_path, fake)
    assert not [call for call in fake.failures.calls if call.startswith("set_soft")]
    assert len(reclaims(fake)) > 2
