# SPDX-License-Identifier: Apache-2.0
"""Whether the machine is as it should be. Pure: values in, alerts out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.kernel_memory import kernel_nodes
from zoned.idset import format_ids
from zoned.model.alert import Alert, AlertCode
from zoned.model.zone import Origin
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from zoned.engine.admission import Capacity
    from zoned.model.topology import Topology
    from zoned.model.zone import Group, Zone

_OFF_NODE_BYTES = 16 << 20
_OFF_NODE_SHARE = 0.01


def verify_zone(zone: Zone, group: Group | None, *, protects: bool) -> Iterator[Alert]:
    """Yield what is wrong with one zone."""
    if zone.spec.backing.protects and not protects:
        yield _alert(
            AlertCode.WEAK_PROTECTION, zone, "the kernel may reclaim what the zone uses (cgroup v1)"
        )
    if zone.origin is Origin.FORMER_POLICY:
        yield _alert(
            AlertCode.LEFTOVER,
            zone,
            "the policy does not name it any more; it goes once its last member is gone",
        )
    if group is None:
        return
    if group.effective_mems is not None and not group.effective_mems <= zone.mems:
        yield _alert(
            AlertCode.UNCONFINED,
            zone,
            f"nodes {format_ids(group.effective_mems)} are in force instead of"
            f" {format_ids(zone.mems)}",
        )
    off = off_node_bytes(zone, group)
    if off > max(_OFF_NODE_BYTES, _OFF_NODE_SHARE * (group.used or 0)):
        yield _alert(
            AlertCode.OFF_NODE,
            zone,
            f"{format_size(off)} lie outside node {format_ids(zone.nodes)}",
        )


def verify_kernel_memory(zones: Iterable[Zone], topology: Topology) -> Iterator[Alert]:
    """Yield zones in which no program can run, though their nodes have memory."""
    usable, present = kernel_nodes(topology), topology.memory_nodes
    for zone in zones:
        if zone.mems & present and not zone.mems & usable:
            yield _alert(
                AlertCode.NO_KERNEL_MEMORY,
                zone,
                f"node {format_ids(zone.mems)} has only movable memory",
            )


def off_node_bytes(zone: Zone, group: Group) -> int:
    """Return the bytes charged to the zone on nodes that are not its own."""
    return sum(used for node, used in group.by_node.items() if node not in zone.mems)


def verify_move(zone: Zone, *, busy: bool) -> Iterator[Alert]:
    """Yield what is left of a move that did not come to its end."""
    if not busy and any(zone.leaving.values()):
        yield _alert(
            AlertCode.HALF_MOVED,
            zone,
            f"it is on its way from node {format_ids(zone.leaving)} to {format_ids(zone.nodes)},"
            " and nobody moves it",
        )


def verify_groups(
    zones: Collection[str], groups: Mapping[str, Group], made: Collection[str]
) -> Iterator[Alert]:
    """Yield groups that no wanted zone stands for."""
    for name, group in sorted(groups.items()):
        if name in zones:
            continue
        if name not in made:
            yield Alert(
                code=AlertCode.UNKNOWN_GROUP,
                subject=name,
                message=f"{group.path} was not made by zoned",
            )
        elif group.pids:
            yield Alert(
                code=AlertCode.LEFTOVER,
                subject=name,
                message=f"{group.path} has {len(group.pids)} members and is no zone any more",
            )


def verify_capacity(capacities: Iterable[Capacity]) -> Iterator[Alert]:
    """Yield nodes on which zones are promised more than there is."""
    for each in capacities:
        if each.reserved and each.available < 0:
            yield Alert(
                code=AlertCode.OVERCOMMITTED,
                subject=f"node {each.node}",
                message=f"{format_size(each.reserved)} are reserved, but it can give"
                f" {format_size(max(0, each.total - each.system))}",
            )


def _alert(code: AlertCode, zone: Zone, message: str) -> Alert:
    return Alert(code=code, subject=zone.name, message=message)
