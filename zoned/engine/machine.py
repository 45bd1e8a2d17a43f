# SPDX-License-Identifier: Apache-2.0
"""What the engine works on: one machine, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoned.engine.blocks.hands import Turn
from zoned.engine.dma.manual import ManualStore
from zoned.engine.dma.pools import HugePools
from zoned.engine.kernel_memory import counted_movable
from zoned.engine.migration.costs import Costs
from zoned.kernel.node import read_topology
from zoned.model.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zoned.engine.ledger import Ledger
    from zoned.engine.store import Store
    from zoned.kernel.cgroup.fence import FenceDriver
    from zoned.kernel.cgroup.protocol import CgroupDriver, UnitDriver
    from zoned.kernel.own_policy import OwnMemory
    from zoned.kernel.root import Root
    from zoned.model.block import Outlook
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
    manual: ManualStore = field(default_factory=ManualStore)
    """memory for devices that was asked for by hand"""
    policy: Policy = field(default_factory=Policy)
    costs: Costs = field(default_factory=Costs)
    turn: Turn = field(default_factory=Turn)
    """to change memory blocks"""
    pools: HugePools = field(default_factory=HugePools)
    """the huge pages of reservations that are in nobody's buffer"""
    low_blocks: dict[str, tuple[Outlook, ...]] = field(default_factory=dict)
    """reservation -> memory blocks as they were just seen, for the job that begins on it"""
    fence: FenceDriver | None = None
    own_memory: OwnMemory | None = None
    fence_changed: Callable[[], None] = lambda: None
    """to be called when groups were kept off nodes, or are no more"""

    def members_of(self, zone: str) -> tuple[int, ...]:
        """Return the processes in a zone; none where it has no group."""
        group = self.groups.group(zone)
        return group.pids if group else ()

    def topology(self) -> Topology:
        """Return the nodes, those that are on their way to movable memory alone as if they were
        there.
        """
        return counted_movable(read_topology(self.root), self.ledger.touched.movable_only)

    def observe(self) -> Snapshot:
        """Return what the kernel shows now."""
        return Snapshot(
            topology=read_topology(self.root),
            groups={group.zone: group for group in self.groups.groups()},
            parent_protection=self.groups.parent_protection() if self.groups.protects else 0,
        )
