# SPDX-License-Identifier: Apache-2.0
"""Whether what is to move fits. Asked before a page moves: a full node would take some and leave
the rest, because the kernel never takes another node instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import NoRoom
from zoned.idset import format_ids
from zoned.kernel.node_room import read_room
from zoned.model.migration import NodeRoom, fits
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from zoned.engine.machine import Machine
    from zoned.model.zone import Group, Zone


def rooms(
    machine: Machine, nodes: Iterable[int], own: Collection[str] = ()
) -> tuple[NodeRoom, ...]:
    """Return what each node can take.

    What zones of backing `reserve` were promised there and do not use yet is not for others; the
    zones in `own` are those that the pages belong to.
    """
    zones = [zone for zone in machine.store.zones.values() if zone.name not in own]
    groups = {group.zone: group for group in machine.groups.groups()} if zones else {}
    promises = promised(zones, groups)
    found = []
    for node in sorted(nodes):
        room = read_room(machine.root, node)
        found.append(
            NodeRoom(
                node=node,
                free=room.free,
                reclaimable=room.file_cache,
                promised=promises.get(node, 0),
                pool=room.pool,
            )
        )
    return tuple(found)


def promised(zones: Iterable[Zone], groups: Mapping[str, Group]) -> dict[int, int]:
    """Return node -> bytes that zones were promised there and do not use yet. Pure."""
    found: dict[int, int] = {}
    for zone in zones:
        group = groups.get(zone.name)
        if not zone.spec.backing.protects:
            continue
        for node, share in zone.shares.items():
            used = group.by_node.get(node, 0) if group else 0
            found[node] = found.get(node, 0) + max(0, share - used)
    return found


def refuse_without_room(what: str, size: int, found: Iterable[NodeRoom], *, huge: int = 0) -> None:
    """Raise NoRoom, with the numbers, where `size` bytes do not fit, `huge` of them hugetlb."""
    found = tuple(found)
    if fits(size, huge, found):
        return
    each = "; ".join(
        f"node {room.node}: {format_size(room.free)} free + {format_size(room.reclaimable)} file"
        f" cache - {format_size(room.promised)} promised to zones = {format_size(room.room)}"
        + (f", and {format_size(room.pool)} for hugetlb pages" if huge else "")
        for room in found
    )
    raise NoRoom(
        f"{what}: {format_size(size)} have to move to node"
        f" {format_ids(room.node for room in found)}, which can take"
        f" {format_size(sum(room.room for room in found))} ({each})",
        hint="free memory there, or name more nodes",
    )
