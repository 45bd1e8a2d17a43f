# SPDX-License-Identifier: Apache-2.0
"""Base zones as they travel over the socket, and as zonectl shows them without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.api.types import BaseListInfo, BaseZoneInfo, DaxInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from zoned.model.base import BaseZone, DaxDevice


def base_list(
    zones: Iterable[BaseZone],
    dax: Iterable[DaxDevice],
    *,
    block_size: int | None,
    auto_online: str | None,
    users: Mapping[int, list[str]] | None,
    movable_only: Collection[int] | None,
) -> BaseListInfo:
    """Return what `zonectl base list` shows.

    `users`: node -> zones there; `movable_only`: the nodes to have such memory alone. None is
    unknown.
    """
    return BaseListInfo(
        block_size=block_size,
        auto_online=auto_online,
        nodes=[
            _zone(
                zone,
                None if users is None else users.get(zone.node, []),
                movable_only=None if movable_only is None else zone.node in movable_only,
            )
            for zone in zones
        ],
        dax=[
            DaxInfo(name=each.name, size=each.size, node=each.node, mode=each.mode.value)
            for each in dax
        ],
    )


def _zone(zone: BaseZone, names: list[str] | None, *, movable_only: bool | None) -> BaseZoneInfo:
    return BaseZoneInfo(
        node=zone.node,
        source=zone.source.value,
        removable=zone.removable,
        total=zone.total,
        blocks=len(zone.blocks),
        kernel=len(zone.kernel),
        movable=len(zone.movable),
        offline=len(zone.offline),
        part_of=sorted(zone.part_of),
        movable_only=movable_only,
        zones=names,
    )
