# SPDX-License-Identifier: Apache-2.0
"""Memory blocks as data and as a table."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from zoned.cli.output import Table, columns
from zoned.idset import format_ids
from zoned.model.block import BASE, zone_of_owner
from zoned.model.topology import BlockState
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zoned.cli.output import Row
    from zoned.model.block import BlockPages, Outlook
    from zoned.model.topology import Block

    Inside = Mapping[str, int]
    """owner (``zone:db``) or path of a cgroup -> bytes"""


def blocks_data(found: Sequence[Block], owners: Mapping[int, str]) -> list[dict[str, object]]:
    """Return what `zonectl blocks list -o json` prints. `owners` is what the daemon knows of."""
    return [_block_data(block, owners) for block in found]


def outlooks_data(
    found: Sequence[Outlook], owners: Mapping[int, str], inside: Mapping[int, Inside]
) -> list[dict[str, object]]:
    """Return what `--why` prints as JSON. `inside` tells block -> whose memory lies in it."""
    return [
        {
            **_block_data(each.block, owners),
            "offline": each.can,
            "why": each.why,
            "pages": None if each.pages is None else _pages_data(each.block, each.pages),
            "zones_inside": dict(inside.get(each.block.id, {})),
        }
        for each in found
    ]


def blocks_table(found: Sequence[Block], owners: Mapping[int, str]) -> Table:
    """Return blocks for people, neighbours that are alike as one line."""
    rows = [_row(run, owners) for run in _runs(found, owners)]
    return Table(columns=columns(*_HEADS), rows=rows)


def outlooks_table(
    found: Sequence[Outlook], owners: Mapping[int, str], inside: Mapping[int, Inside]
) -> Table:
    """Return blocks with what `--why` adds."""
    more = {
        each.block.id: [
            {True: "yes", False: "no", None: None}[each.can],
            _inside_cell(inside.get(each.block.id, {})),
            each.why,
        ]
        for each in found
    }
    runs = _runs([each.block for each in found], owners, more)
    rows = [[*_row(run, owners), *more[run[0].id]] for run in runs]
    return Table(columns=columns(*_HEADS, "CAN GO", "INSIDE", "WHY"), rows=rows)


_HEADS = ("BLOCKS", "RANGE", ">SIZE", "STATE", "ZONES", ">NODE", "OWNER")


def _block_data(block: Block, owners: Mapping[int, str]) -> dict[str, object]:
    return {
        "id": block.id,
        "start": block.start,
        "size": block.size,
        "state": None if block.state is None else str(block.state),
        "zones": list(block.zones),
        "node": block.node,
        "owner": _owner(block, owners),
    }


def _pages_data(block: Block, pages: BlockPages) -> dict[str, object]:
    page = (block.size or 0) // pages.total
    return {
        "free": pages.free * page,
        "movable": pages.movable * page,
        "huge": pages.huge * page,
        "unmovable": {kind: number * page for kind, number in pages.unmovable.items()},
        "holes": pages.holes * page,
    }


def _owner(block: Block, owners: Mapping[int, str]) -> str | None:
    if block.id in owners:
        return owners[block.id]
    return BASE if block.state is BlockState.ONLINE else block.owner


def _inside_cell(inside: Inside) -> str | None:
    """Return e.g. ``db 96MiB, others 4MiB``: each zone, and all other groups together."""
    zones = {zone: size for owner, size in inside.items() if (zone := zone_of_owner(owner))}
    others = sum(inside.values()) - sum(zones.values())
    parts = [f"{zone} {format_size(size)}" for zone, size in sorted(zones.items())]
    if others:
        parts.append(f"others {format_size(others)}")
    return ", ".join(parts) or None


def _runs(
    found: Sequence[Block], owners: Mapping[int, str], more: Mapping[int, Row] | None = None
) -> Iterator[list[Block]]:
    """Yield neighbouring blocks that differ in nothing but their address."""

    def alike(numbered: tuple[int, Block]) -> object:
        position, block = numbered
        kind = (block.state, block.zones, block.node, _owner(block, owners))
        return block.id - position, kind, (more or {}).get(block.id)

    for _, run in groupby(enumerate(found), key=alike):
        yield [block for _, block in run]


def _row(run: Sequence[Block], owners: Mapping[int, str]) -> list[str | int | None]:
    first, size = run[0], run[0].size
    end = None if size is None else first.start + size * len(run) - 1
    return [
        format_ids(block.id for block in run),
        f"{first.start:#018x}" + ("" if end is None else f"-{end:#018x}"),
        None if size is None else format_size(size * len(run)),
        None if first.state is None else str(first.state),
        " ".join(first.zones) or None,
        first.node,
        _owner(first, owners),
    ]
