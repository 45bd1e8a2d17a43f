# SPDX-License-Identifier: Apache-2.0
"""Which groups have to be kept off nodes, and which can have theirs back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.idset import format_ids

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from zoned.kernel.cgroup.fence import Outsider


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceAction:
    """Let a group use these nodes alone."""

    group: str
    former: frozenset[int]
    """the nodes that it was confined to before; empty for none"""
    nodes: frozenset[int]

    def describe(self) -> str:
        return f"confine {self.group} to nodes {format_ids(self.nodes)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftFence:
    """Let a group use what it could before."""

    group: str
    former: frozenset[int]

    def describe(self) -> str:
        what = f"nodes {format_ids(self.former)}" if self.former else "all nodes"
        return f"let {self.group} use {what} again"


def fence_plan(
    fenced: frozenset[int],
    every: frozenset[int],
    outsiders: Collection[Outsider],
    recorded: Mapping[str, frozenset[int]],
    usable: frozenset[int] | None = None,
) -> list[FenceAction | LiftFence]:
    """Return what has to be done so that no outsider may use a fenced node.

    `every` are all nodes that a group can be given, `recorded` the groups that the ledger says
    were confined, each with the nodes that it had before. Those that are gone are lifted too: a
    unit that is started again has its node set from a file.

    Left alone are the group that the daemon is in and those of `unfenceable`. Groups in groups
    are there on cgroup v1 alone: they give nodes up before the group that they are in, and get
    them after it.
    """
    left_alone = {each.name for each in unfenceable(fenced, every, outsiders, recorded, usable)}
    there = {each.name: each for each in outsiders}
    lift = [
        LiftFence(group=name, former=former)
        for name, former in recorded.items()
        if name not in there or _has_enough(former, fenced)
    ]
    lifted = {action.group for action in lift}
    more: list[FenceAction | LiftFence] = [*lift]
    less: list[FenceAction] = []
    for each in outsiders:
        if each.name in lifted | left_alone or (each.holds_daemon and fenced):
            continue
        former = recorded.get(each.name, each.own)
        nodes = _nodes_for(former, fenced, every)
        if _has_enough(former, fenced) or nodes == each.own == each.written:
            continue
        action = FenceAction(group=each.name, former=former, nodes=nodes)
        (more if each.written and nodes > each.written else less).append(action)
    more.sort(key=_depth)
    return [*more, *sorted(less, key=_depth, reverse=True)]


def unfenceable(
    fenced: frozenset[int],
    every: frozenset[int],
    outsiders: Collection[Outsider],
    recorded: Mapping[str, frozenset[int]],
    usable: frozenset[int] | None = None,
) -> list[Outsider]:
    """Return the groups whose own nodes would all be taken from them.

    The kernel would let such a group use the nodes of the group above it. `usable` are the nodes
    with memory of which one at least has to be left; all by default.
    """
    enough = every if usable is None else usable
    return [
        each
        for each in outsiders
        if fenced and not _nodes_for(recorded.get(each.name, each.own), fenced, every) & enough
    ]


def _nodes_for(
    former: frozenset[int], fenced: frozenset[int], every: frozenset[int]
) -> frozenset[int]:
    return (former or every) - fenced


def _has_enough(former: frozenset[int], fenced: frozenset[int]) -> bool:
    """Return whether a group needs no fence, its own nodes being others."""
    return not fenced or (bool(former) and not former & fenced)


def _depth(action: FenceAction | LiftFence) -> int:
    return action.group.count("/")
