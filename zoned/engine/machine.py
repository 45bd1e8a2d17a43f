# SPDX-License-Identifier: Apache-2.0
"""What the engine works on: one machine, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned.engine.migration.costs import Costs
from zoned.kernel.node import read_topology
from zoned.model.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.ledger import Ledger
    from zoned.engine.store import Store
    from zoned.kernel.cgroup.protocol import CgroupDriver, UnitDriver
    from zoned.kernel.root import Root
    from zoned.model.topology import Topology
    from zoned.model.zone import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The machine as it was seen at one moment."""

    topology: Topology
    groups: Mapping[str, Group]
    parent_protection: int


@dataclass(slots=True, kw_only=True)
class Machine:
    """The kernel's interfaces, the wanted zones and the ledger. Changed by one thread only."""

    root: Root
    groups: CgroupDriver
    units: UnitDriver | None
    store: Store
    ledger: Ledger
    policy: Policy = field(default_factory=Policy)
    costs: Costs = field(default_factory=Costs)

    def members_of(self, zone: str) -> tuple[int, ...]:
        """Return the processes in a zone; none where it has no group."""
        group = self.groups.group(zone)
        return group.pids if group else ()

    def observe(self) -> Snapshot:
        """Return what the kernel shows now."""
        return Snapshot(
            topology=read_topology(self.root),
            groups={group.zone: group for group in self.groups.groups()},
            parent_protection=self.groups.parent_protection() if self.groups.protects else 0,
        )
