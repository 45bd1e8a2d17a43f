# SPDX-License-Identifier: Apache-2.0
"""Plans: what is done, in which order, and that nothing is left to do afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fakes import GIB, MIB, FakeGroup, FakeGroups
from zoned.engine.derive import limits_of
from zoned.engine.plan import plan
from zoned.model.action import (
    ChangeGroup,
    CreateGroup,
    PrepareParent,
    ProtectParent,
    RemoveGroup,
    RetireParent,
)
from zoned.model.zone import Backing, Group, Limits, Zone, ZoneSpec

if TYPE_CHECKING:
    from zoned.model.action import Action

ALL = frozenset({"a", "b", "c", "d"})


def zone(name: str, gib: int = 1, backing: Backing = Backing.RESERVE) -> Zone:
    spec = ZoneSpec(name=name, size=gib * GIB, backing=backing)
    return Zone(spec=spec, shares={0: gib * GIB}, cpus=frozenset({0, 1}))


def group_of(wanted: Zone, *pids: int) -> Group:
    return Group(zone=wanted.name, path=f"/zone/{wanted.name}", limits=limits_of(wanted), pids=pids)


def same(limits: Limits) -> Limits:
    return limits


def plan_for(
    zones: list[Zone],
    groups: list[Group],
    *,
    made: frozenset[str] = ALL,
    parent_made: bool = True,
    protection: int = 0,
) -> list[Action]:
    return plan(
        {each.name: each for each in zones},
        {each.zone: each for each in groups},
        made=made,
        parent_made=parent_made,
        parent_protection=protection,
        expected=same,
    )


A, B, BIG = zone("a"), zone("b"), zone("a", 2)


@pytest.mark.parametrize(
    ("backing", "limits"),
    [
        (Backing.RESERVE, Limits(max=GIB, min=GIB, swap=5, mems=frozenset({0}))),
        (Backing.LIMIT, Limits(max=GIB, min=0, swap=5, mems=frozenset({0}))),
    ],
)
def test_limits_of_a_zone(backing: Backing, limits: Limits) -> None:
    spec = ZoneSpec(name="a", size=GIB, backing=backing, swap=5, exclusive_cpus=True)
    wanted = Zone(spec=spec, shares={0: GIB}, cpus=None)
    assert limits_of(wanted) == replace(limits, exclusive_cpus=True)


def test_nothing_to_do() -> None:
    assert plan_for([], [], parent_made=False) == []
    assert plan_for([A, B], [group_of(A), group_of(B)], protection=2 * GIB) == []


def test_the_first_zone() -> None:
    assert plan_for([A], [], made=frozenset(), parent_made=False) == [
        PrepareParent(),
        ProtectParent(minimum=GIB),
        CreateGroup(zone="a", limits=limits_of(A)),
    ]


def test_protection_rises_before_and_falls_after() -> None:
    larger = plan_for([BIG], [group_of(A)], protection=GIB)
    assert larger == [
        ProtectParent(minimum=2 * GIB),
        ChangeGroup(zone="a", limits=limits_of(BIG)),
    ]
    smaller = plan_for([A], [group_of(BIG)], protection=2 * GIB)
    assert smaller == [
        ChangeGroup(zone="a", limits=limits_of(A)),
        ProtectParent(minimum=GIB),
    ]


def test_zones_are_made_before_others_go() -> None:
    assert plan_for([B], [group_of(A)], protection=GIB) == [
        PrepareParent(),
        ProtectParent(minimum=2 * GIB),
        CreateGroup(zone="b", limits=limits_of(B)),
        RemoveGroup(zone="a"),
        ProtectParent(minimum=GIB),
    ]


def test_protection_is_enough_for_any_part_of_the_changes() -> None:
    swapped = [zone("a", 1), zone("b", 5)]
    present = [group_of(zone("a", 4)), group_of(zone("b", 2))]
    assert plan_for(swapped, present, protection=6 * GIB) == [
        ProtectParent(minimum=9 * GIB),
        ChangeGroup(zone="a", limits=limits_of(swapped[0])),
        ChangeGroup(zone="b", limits=limits_of(swapped[1])),
        ProtectParent(minimum=6 * GIB),
    ]


def test_the_parent_goes_with_the_last_zone() -> None:
    assert plan_for([], [group_of(A), group_of(B)], protection=2 * GIB) == [
        RemoveGroup(zone="a"),
        RemoveGroup(zone="b"),
        RetireParent(),
    ]


@pytest.mark.parametrize(
    ("group", "made"), [(group_of(A, 7), ALL), (group_of(A), frozenset[str]())]
)
def test_groups_with_members_or_of_others_stay_and_so_does_the_parent(
    group: Group, made: frozenset[str]
) -> None:
    assert plan_for([], [group, group_of(B)], made=made | {"b"}, protection=2 * GIB) == [
        RemoveGroup(zone="b"),
        ProtectParent(minimum=GIB),
    ]


def test_a_zone_is_compared_with_what_the_kernel_can_show() -> None:
    groups = FakeGroups(protects=False)
    odd = replace(A, spec=replace(A.spec, size=GIB + 1))
    shown = replace(group_of(odd), limits=groups.expected(limits_of(odd)))
    assert shown.limits.max == GIB
    assert not plan(
        {"a": odd},
        {"a": shown},
        made=ALL,
        parent_made=True,
        parent_protection=0,
        expected=groups.expected,
    )


def carry_out(groups: FakeGroups, actions: list[Action]) -> None:
    for action in actions:
        match action:
            case PrepareParent():
                groups.prepare()
            case RetireParent():
                groups.retire()
            case ProtectParent(minimum=minimum):
                groups.protect_parent(minimum)
            case CreateGroup(zone=name, limits=limits):
                groups.create(name, limits)
            case ChangeGroup(zone=name, limits=limits):
                groups.change(name, limits)
            case RemoveGroup(zone=name):
                groups.remove(name)


ZONES = st.dictionaries(
    st.sampled_from(sorted(ALL)), st.tuples(st.integers(1, 9), st.sampled_from(Backing))
)


@given(ZONES, ZONES, st.booleans())
def test_after_a_plan_nothing_is_left_to_do(
    before: dict[str, tuple[int, Backing]],
    after: dict[str, tuple[int, Backing]],
    protects: bool,  # noqa: FBT001 - hypothesis hands it over
) -> None:
    groups = FakeGroups(protects=protects)
    for wanted in (before, after):
        zones = {name: zone(name, size, backing) for name, (size, backing) in wanted.items()}
        for is_left in (True, False):
            actions = plan(
                zones,
                {group.zone: group for group in groups.groups()},
                made=ALL,
                parent_made=groups.there,
                parent_protection=groups.parent_protection(),
                expected=groups.expected,
            )
            assert is_left or not actions
            carry_out(groups, actions)
        assert groups.made.keys() == zones.keys()
        assert groups.there == bool(zones)
        if zones:
            assert groups.minimum == sum(each.limits.min for each in groups.made.values())
    assert not groups.broken_promises


def test_every_action_tells_what_it_does() -> None:
    limits = Limits(max=GIB, min=MIB, mems=frozenset({0, 1}), cpus=frozenset({3}), swap=0)
    exclusive = replace(limits, exclusive_cpus=True, swap=None, mems=None, cpus=None)
    assert [
        action.describe()
        for action in (
            PrepareParent(),
            ProtectParent(minimum=GIB),
            CreateGroup(zone="a", limits=limits),
            ChangeGroup(zone="a", limits=exclusive),
            RemoveGroup(zone="a"),
            RetireParent(),
        )
    ] == [
        "prepare the group above all zones",
        "protect 1GiB for all zones together",
        "make zone a: max 1GiB, min 1MiB, swap 0B, nodes 0-1, CPUs 3",
        "set zone a: max 1GiB, min 1MiB, exclusive CPUs",
        "remove zone a",
        "remove the group above all zones",
    ]


def test_fake_groups_see_broken_promises() -> None:
    groups = FakeGroups()
    groups.prepare()
    groups.made["a"] = FakeGroup(Limits())
    groups.change("a", limits_of(A))
    assert groups.broken_promises
