# SPDX-License-Identifier: Apache-2.0
"""Who has to be kept off which nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.engine.fence.fakes import NODES, nodes, outsider
from zoned.engine.fence.plan import FenceAction, LiftFence, fence_plan, unfenceable

if TYPE_CHECKING:
    from zoned.kernel.cgroup.fence import Outsider

FENCED = nodes(2)


def fence(group: str, former: frozenset[int], now: frozenset[int]) -> FenceAction:
    return FenceAction(group=group, former=former, nodes=now)


def test_everybody_is_kept_off() -> None:
    groups = [outsider("system.slice"), outsider("db.slice", 1, 2), outsider("web.slice", 0, 1)]

    assert fence_plan(FENCED, NODES, groups, {}) == [
        fence("system.slice", nodes(), nodes(0, 1)),
        fence("db.slice", nodes(1, 2), nodes(1)),
    ]


def test_nothing_is_done_twice() -> None:
    groups = [outsider("system.slice", 0, 1)]

    assert fence_plan(FENCED, NODES, groups, {"system.slice": nodes()}) == []


def test_what_somebody_set_back_is_mended_whoever_did_it() -> None:
    recorded = {"system.slice": nodes()}
    kept = outsider("system.slice", 0, 1)
    for drifted in (
        outsider("system.slice"),
        replace(kept, written=NODES),
        replace(kept, own=nodes(2)),
        replace(kept, written=None),
    ):
        assert fence_plan(FENCED, NODES, [drifted], recorded) == [
            fence("system.slice", nodes(), nodes(0, 1))
        ]


def test_a_node_that_appears_is_for_everybody() -> None:
    groups = [outsider("system.slice", 0, 1)]

    assert fence_plan(FENCED, NODES | {3}, groups, {"system.slice": nodes()}) == [
        fence("system.slice", nodes(), nodes(0, 1, 3))
    ]


def test_a_fence_that_moves_gives_back_what_it_does_not_need() -> None:
    recorded = {"system.slice": nodes(), "db.slice": nodes(1, 2)}
    groups = [outsider("system.slice", 0, 1), outsider("db.slice", 1)]

    assert fence_plan(nodes(0), NODES, groups, recorded) == [
        LiftFence(group="db.slice", former=nodes(1, 2)),
        fence("system.slice", nodes(), nodes(1, 2)),
    ]


def test_without_zones_all_is_as_it_was() -> None:
    recorded = {"system.slice": nodes(), "gone.slice": nodes(0)}
    groups = [outsider("system.slice", 0, 1), outsider("new.slice")]

    assert fence_plan(nodes(), NODES, groups, recorded) == [
        LiftFence(group="system.slice", former=nodes()),
        LiftFence(group="gone.slice", former=nodes(0)),
    ]


def test_a_group_that_is_gone_is_not_kept_on_record() -> None:
    groups = [outsider("system.slice", 0, 1)]
    recorded = {"system.slice": nodes(), "gone.slice": nodes()}

    assert fence_plan(FENCED, NODES, groups, recorded) == [
        LiftFence(group="gone.slice", former=nodes())
    ]


def test_the_daemon_is_never_confined() -> None:
    groups = [outsider("user.slice", holds_daemon=True)]

    assert fence_plan(FENCED, NODES, groups, {}) == []
    # What an earlier daemon confined stays so while it is wanted, and can be lifted.
    recorded = {"user.slice": nodes()}
    assert fence_plan(FENCED, NODES, groups, recorded) == []
    assert fence_plan(nodes(), NODES, groups, recorded) == [
        LiftFence(group="user.slice", former=nodes())
    ]


def test_a_group_with_no_other_node_is_left_alone() -> None:
    groups = [outsider("db.slice", 2), outsider("far.slice", 1, 2), outsider("system.slice")]

    assert unfenceable(FENCED, NODES, groups, {}) == groups[:1]
    # Node 1 is there, but has no memory: the kernel would let the group use all nodes.
    assert unfenceable(FENCED, NODES, groups, {}, nodes(0, 2)) == groups[:2]
    assert unfenceable(nodes(), NODES, groups, {}, nodes(0)) == []
    assert [action.group for action in fence_plan(FENCED, NODES, groups, {}, nodes(0, 2))] == [
        "system.slice"
    ]


def test_groups_in_groups_give_up_first_and_get_back_last() -> None:
    groups = [outsider("/a", 0, 1, 2), outsider("/a/b", 1, 2), outsider("/a/b/c", 1, 2)]

    given_up = fence_plan(FENCED, NODES, groups, {})
    assert [action.group for action in given_up] == ["/a/b/c", "/a/b", "/a"]

    kept = [outsider("/a/b/c", 1), outsider("/a/b", 1), outsider("/a", 0, 1)]
    recorded = {"/a/b/c": nodes(1, 2), "/a/b": nodes(1, 2), "/a": NODES}
    back = fence_plan(nodes(), NODES, kept, recorded)
    assert [action.group for action in back] == ["/a", "/a/b", "/a/b/c"]
    more = fence_plan(
        nodes(0), NODES, kept[::2], {name: recorded[name] for name in ("/a/b/c", "/a")}
    )
    assert [action.group for action in more] == ["/a/b/c", "/a"]


def test_descriptions() -> None:
    assert fence("a.slice", nodes(), nodes(0, 1)).describe() == "confine a.slice to nodes 0-1"
    assert LiftFence(group="a.slice", former=nodes(1)).describe() == "let a.slice use nodes 1 again"
    assert LiftFence(group="a", former=nodes()).describe() == "let a use all nodes again"


SETS = st.frozensets(st.sampled_from(sorted(NODES)))


@given(fenced=SETS, owns=st.lists(SETS, max_size=4), then=SETS)
def test_carried_out_it_is_done_and_undone(
    fenced: frozenset[int], owns: list[frozenset[int]], then: frozenset[int]
) -> None:
    before = {f"{at}.slice": own for at, own in enumerate(owns)}
    groups, recorded = dict(before), dict[str, frozenset[int]]()

    def shown() -> list[Outsider]:
        return [outsider(name, *own) for name, own in groups.items()]

    def step(wanted: frozenset[int]) -> None:
        for action in fence_plan(wanted, NODES, shown(), recorded):
            if isinstance(action, LiftFence):
                groups[action.group] = action.former
                del recorded[action.group]
            else:
                recorded.setdefault(action.group, action.former)
                groups[action.group] = action.nodes
        left = {each.name for each in unfenceable(wanted, NODES, shown(), recorded)}
        for each in shown():
            assert each.name in left or not (each.effective or nodes()) & wanted
        assert fence_plan(wanted, NODES, shown(), recorded) == []

    step(fenced)
    step(then)
    step(nodes())
    assert groups == before
    assert recorded == {}
