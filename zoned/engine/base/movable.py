# SPDX-License-Identifier: Apache-2.0
"""Base zones of movable memory alone: on request or by policy, for they can always leave again.

The ledger remembers them, so that nobody gives them memory for the kernel later on, until they
leave. Zones use them together with a node that has other memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.engine.kernel_memory import counted_movable, stranded, with_nearest
from zoned.errors import MovableOnly, UsageError
from zoned.idset import format_ids
from zoned.kernel.base_zones import read_base_zones
from zoned.kernel.dax import is_dax_name
from zoned.kernel.memory_block import read_blocks
from zoned.model.base import BaseSource, BaseZone

if TYPE_CHECKING:
    from zoned.engine.base.target import Target
    from zoned.engine.machine import Machine
    from zoned.model.zone import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What of a base zone is to be movable, however little is left to the kernel."""

    blocks: frozenset[int] = frozenset()
    alone: bool | None = None
    """whether that is all of it from now on; None where nothing changes in that"""
    note: str = ""
    """what to tell whoever asked"""


def find_claim(
    machine: Machine, target: Target, only: frozenset[int] | None = None, *, asked: bool
) -> Claim:
    """Return what is to be movable when the target comes, or of it only some blocks.

    Nothing, unless it was `asked` for, or the policy or an earlier request says so. Raises
    MovableOnly where it was asked for and a zone would be left without memory for the kernel,
    UsageError where it was not and the base zone has none.
    """
    noted = target.node in machine.ledger.touched.movable_only
    wanted = asked or machine.policy.movable_only
    if not (wanted or noted):
        return Claim()
    every = {zone.node: zone for zone in read_base_zones(machine.root)}
    zone = every.get(target.node, BaseZone(node=target.node))
    if not wanted and only is None:
        _refuse_memory_for_the_kernel(zone, target.name)
        return Claim(alone=False)
    mine = _own_blocks(zone, target)
    mine = mine if only is None else mine & only
    if any(block.id not in mine for block in zone.kernel):
        note = f"node {zone.node} has other memory that the kernel uses: only what comes is movable"
        return Claim(blocks=mine, note=note if asked else "")
    left = [] if noted else _left_alone(machine, zone.node)
    if left and asked:
        raise _stranding(machine, left, zone.node)
    if left:
        why = (
            f"zone {left[0].name} has node {zone.node} alone and needs memory for the kernel there"
        )
        return Claim(note=why)
    return Claim(blocks=mine, alone=BaseSource.BOOT not in zone.sources)


def claim(
    machine: Machine, target: Target, only: frozenset[int] | None = None, *, asked: bool
) -> Claim:
    """Find a claim, and remember it. For the thread that changes the machine.

    From then on no zone is placed on the base zone alone, though its last block may still be the
    kernel's. Raises what `find_claim` raises.
    """
    found = find_claim(machine, target, only, asked=asked)
    if found.alone is not None:
        noted = machine.ledger.touched.movable_only - {target.node}
        machine.ledger.movable_only_is(noted | {target.node} if found.alone else noted)
    return found


def forget_left(machine: Machine, node: int) -> None:
    """Forget a base zone none of whose memory is in use any more."""
    zones = read_base_zones(machine.root)
    if not any(zone.online for zone in zones if zone.node == node):
        machine.ledger.movable_only_is(machine.ledger.touched.movable_only - {node})


def forget_gone(machine: Machine) -> None:
    """Forget base zones that were pulled without being removed first."""
    noted = machine.ledger.touched.movable_only
    if not noted:
        return
    nodes = {block.node for block in read_blocks(machine.root)}
    # The kernel tells the node of a new block last.
    if None not in nodes:
        machine.ledger.movable_only_is(noted & nodes)


def meant_movable(machine: Machine, zone: BaseZone) -> frozenset[int]:
    """Return the blocks of a base zone that should be movable, however many are."""
    noted = zone.node in machine.ledger.touched.movable_only
    if noted or (machine.policy.movable_only and not zone.is_fixed):
        return frozenset(block.id for block in zone.blocks)
    return frozenset()


def _own_blocks(zone: BaseZone, target: Target) -> frozenset[int]:
    """Return the target's blocks; where the machine started with others, those that come now."""
    mine = frozenset(block.id for block in target.blocks)
    if zone.is_fixed and not is_dax_name(target.name):
        mine &= {block.id for block in zone.offline}
    return mine


def _refuse_memory_for_the_kernel(zone: BaseZone, name: str) -> None:
    """Raise UsageError where a base zone has movable memory alone: with other it could not leave.

    What the kernel could not be brought to give up is no reason.
    """
    if zone.online and not zone.kernel:
        raise UsageError(
            f"node {zone.node} was added with movable memory alone, and stays so until it is"
            " removed",
            hint=f"zonectl base add {name} --movable-only brings more of it online; zonectl base"
            f" remove {zone.node} and add bring it back with memory for the kernel",
        )


def _left_alone(machine: Machine, node: int) -> list[Zone]:
    """Return the zones there that would have no memory for the kernel without that of the node."""
    zones = (zone for zone in machine.store.zones.values() if node in zone.nodes)
    return stranded(zones, counted_movable(machine.topology(), {node}))


def _stranding(machine: Machine, zones: list[Zone], node: int) -> MovableOnly:
    names = ", ".join(zone.name for zone in zones)
    topology = counted_movable(machine.topology(), {node})
    together = with_nearest(zones[0].nodes, topology)
    hint = f"zonectl move {zones[0].name} --nodes {format_ids(together)}" if together else ""
    return MovableOnly(
        f"zone {names} would be left with the movable memory of node {node} alone, with which no"
        " program can run",
        hint=hint,
    )
