# SPDX-License-Identifier: Apache-2.0
"""What users are shown of base zones. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.api.base import base_list
from zoned.kernel.auto_online import read_auto_online
from zoned.kernel.base_zones import read_base_zones
from zoned.kernel.dax import read_dax
from zoned.kernel.memory_block import block_size

if TYPE_CHECKING:
    from zoned.api.types import BaseListInfo
    from zoned.engine.machine import Machine


def list_base(machine: Machine) -> BaseListInfo:
    """Return all base zones, with the zones on them. Raises MachineError."""
    users: dict[int, list[str]] = {}
    for zone in sorted(machine.store.zones.values(), key=lambda each: each.name):
        for node in zone.mems:
            users.setdefault(node, []).append(zone.name)
    return base_list(
        read_base_zones(machine.root),
        read_dax(machine.root),
        block_size=block_size(machine.root),
        auto_online=read_auto_online(machine.root),
        users=users,
        movable_only=machine.ledger.touched.movable_only,
    )
