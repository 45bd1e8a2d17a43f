# SPDX-License-Identifier: Apache-2.0
"""Groups beside the zones, in memory: as strict as the kernel's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.unit.fakes import Failures
from zoned.kernel.cgroup.fence import Loose, Outsider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODES = frozenset({0, 1, 2})


def nodes(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def outsider(name: str, *own: int, holds_daemon: bool = False) -> Outsider:
    """Return a group as it is when nobody has touched it."""
    return Outsider(
        name=name,
        own=frozenset(own),
        written=frozenset(own),
        effective=frozenset(own) or NODES,
        holds_daemon=holds_daemon,
    )


@dataclass
class FakeFence:
    """See FenceDriver."""

    groups: dict[str, Outsider] = field(default_factory=dict)
    failures: Failures = field(default_factory=Failures)
    loose_ones: Loose = field(default_factory=Loose)
    ignores: set[str] = field(default_factory=set)
    """groups whose nodes in force are all, whatever is written"""
    before_confine: Callable[[str], None] = lambda _: None

    def add(self, *outsiders: Outsider) -> FakeFence:
        self.groups |= {each.name: each for each in outsiders}
        return self

    def nodes(self) -> frozenset[int]:
        return NODES

    def outsiders(self) -> tuple[Outsider, ...]:
        self.failures.call("outsiders")
        return tuple(self.groups.values())

    def confine(self, name: str, nodes: frozenset[int]) -> None:
        self.before_confine(name)
        self.failures.call("confine", name, sorted(nodes))
        self._set(name, nodes)

    def lift(self, name: str, former: frozenset[int]) -> None:
        self.failures.call("lift", name, sorted(former))
        self._set(name, former)

    def _set(self, name: str, own: frozenset[int]) -> None:
        if name in self.groups:
            effective = NODES if name in self.ignores else own or NODES
            self.groups[name] = replace(
                self.groups[name], own=own, written=own, effective=effective
            )

    def loose(self) -> Loose:
        return self.loose_ones

    def watched(self) -> tuple[Path, ...]:
        return ()

    def own(self) -> dict[str, frozenset[int]]:
        """Return each group's own nodes."""
        return {name: each.own for name, each in self.groups.items()}
