# SPDX-License-Identifier: Apache-2.0
"""The ledger knows of everything for as long as it may be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fakes import World, make_world
from zoned.engine.execute import execute
from zoned.errors import KernelRefused
from zoned.model.action import (
    ChangeGroup,
    CreateGroup,
    PrepareParent,
    RemoveGroup,
    RetireParent,
)
from zoned.model.zone import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.model.action import Action

LIMITS = Limits(max=1 << 30)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.mark.parametrize(
    ("action", "method"),
    [
        (PrepareParent(), "prepare"),
        (CreateGroup(zone="db", limits=LIMITS), "create"),
        (ChangeGroup(zone="db", limits=LIMITS), "change"),
        (RemoveGroup(zone="db"), "remove"),
        (RetireParent(), "retire"),
    ],
)
def test_what_fails_is_in_the_ledger(world: World, action: Action, method: str) -> None:
    """Before anything is made it is there, and until all is gone it stays."""
    machine = world.machine()
    before: list[Action] = [PrepareParent(), CreateGroup(zone="db", limits=LIMITS)]
    if action in before:
        before = before[: before.index(action)]
    for each in before:
        execute(machine, each)
    if isinstance(action, RetireParent):
        execute(machine, RemoveGroup(zone="db"))
    world.groups.failures.at(method, KernelRefused("no"))
    with pytest.raises(KernelRefused):
        execute(machine, action)
    touched = world.machine().ledger.touched
    assert touched.parent
    assert ("db" in touched.groups) is not isinstance(action, PrepareParent | RetireParent)


def test_what_is_gone_is_not(world: World) -> None:
    machine = world.machine()
    for action in (PrepareParent(), CreateGroup(zone="db", limits=LIMITS)):
        execute(machine, action)
    execute(machine, RemoveGroup(zone="db"))
    execute(machine, RetireParent())
    touched = world.machine().ledger.touched
    assert (touched.parent, touched.groups) == (False, frozenset())
