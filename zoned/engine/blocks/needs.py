# SPDX-License-Identifier: Apache-2.0
"""What is to become of memory blocks: who lacks some, and which belong back. Pure.

One rule serves requests, restarts and crashes alike: the blocks that the wanted zones and the
parked pool account for stay, and those of reservations for devices; everything else in the ledger
goes back to where it was found.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned.model.block import BASE, PARKED, RETURNING, zone_of_owner, zone_owner
from zoned.model.dma.held import reservation_of_owner
from zoned.model.zone import Backing

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from zoned.model.block import HeldBlock
    from zoned.model.topology import Block
    from zoned.model.zone import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What differs between the blocks that are held and those that should be."""

    short: Mapping[str, Mapping[int, int]]
    """zone -> node -> blocks that it lacks there"""
    parked: Mapping[int, int]
    """node -> blocks that the policy's pool lacks there"""
    back: tuple[HeldBlock, ...]
    """blocks that nobody wants any more"""


def has_blocks(zone: Zone) -> bool:
    """Return whether a zone holds memory blocks at all."""
    return zone.spec.backing is Backing.BLOCKS


def blocks_of(zone: Zone, size: int) -> dict[int, int]:
    """Return node -> blocks of `size` bytes that a zone has to hold there; none for most zones."""
    if not has_blocks(zone):
        return {}
    return {node: -(-share // size) for node, share in zone.accounted.items() if share}


def held_on(
    held: Mapping[int, HeldBlock], owner: str, blocks: Mapping[int, Block], node: int | None = None
) -> list[HeldBlock]:
    """Return what an owner holds, of all nodes or of one."""
    return [
        each
        for number, each in held.items()
        if each.owner == owner
        and number in blocks
        and (node is None or blocks[number].node == node)
    ]


def find_needs(
    zones: Iterable[Zone],
    held: Mapping[int, HeldBlock],
    blocks: Iterable[Block],
    size: int,
    parked: Mapping[int, int],
    reservations: Container[str] = (),
) -> Needs:
    """Return what is to be done. `parked` is the bytes that the policy wants parked on nodes.

    What is to become of the blocks of `reservations` these decide themselves.
    """
    by_number = {block.id: block for block in blocks}
    short: dict[str, dict[int, int]] = {}
    back = list(_unwanted(held.values(), reservations))
    wanted: set[str] = set()
    for zone in zones:
        wanted.add(zone.name)
        need = blocks_of(zone, size)
        mine = held_on(held, zone_owner(zone.name), by_number)
        for node in need.keys() | {by_number[each.number].node for each in mine}:
            if node is None:
                continue
            here = [each for each in mine if by_number[each.number].node == node]
            missing = need.get(node, 0) - len(here)
            if missing > 0:
                short.setdefault(zone.name, {})[node] = missing
            # The last ones first: they were the worst to take.
            back += here[len(here) + missing :] if missing < 0 else []
    for each in held.values():
        zone_name = zone_of_owner(each.owner)
        if zone_name is not None and zone_name not in wanted:
            back.append(each)
    return Needs(
        short=short,
        parked=_lacking(parked, held, by_number, size),
        back=tuple(each for each in back if each.number in by_number),
    )


def is_for_device(held: HeldBlock, reservations: Container[str]) -> bool:
    """Return whether the block belongs to one of the reservations."""
    name = reservation_of_owner(held.owner)
    return name is not None and name in reservations


def _unwanted(held: Iterable[HeldBlock], reservations: Container[str]) -> Iterator[HeldBlock]:
    """Yield what belongs to no zone, pool or reservation: steps that were cut off."""
    for each in held:
        mine = each.owner == PARKED or is_for_device(each, reservations)
        if not mine and zone_of_owner(each.owner) is None:
            yield each


def _lacking(
    wanted: Mapping[int, int],
    held: Mapping[int, HeldBlock],
    blocks: Mapping[int, Block],
    size: int,
) -> dict[int, int]:
    # What zones have from the pool comes back to it: as many more would be too many then.
    pool = Counter(
        blocks[number].node
        for number, each in held.items()
        if number in blocks and PARKED in {each.owner, each.home}
    )
    lacking = {node: -(-amount // size) - pool[node] for node, amount in wanted.items()}
    return {node: count for node, count in lacking.items() if count > 0}


def returning(held: HeldBlock) -> HeldBlock:
    """Return the entry of a block that is on its way back."""
    return replace(held, owner=RETURNING)


def home_of(held: HeldBlock) -> str:
    """Return whose the block is to be: the pool's, or the base zone's."""
    return PARKED if held.home == PARKED else BASE
