# SPDX-License-Identifier: Apache-2.0
"""Making room in a zone before its limit is lowered.

Lowering `memory.max` below what is used ends processes: the write itself reclaims 16 times and then
calls the OOM killer (cgroup-v2.rst, "memory.max"; mm/memcontrol.c, memory_max_write). So the soft
limits come first, then reclaim slice by slice, and the caller lowers the hard limit only when the
use is below it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from zoned.errors import BelowUse, ZonedError
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.kernel.cgroup.protocol import CgroupDriver
    from zoned.model.zone import Group, Limits

SLICE = 64 << 20
"""Bytes asked of the kernel at a time: enough to be quick, little enough to be interruptible."""

_PATIENCE = 3
"""How many rounds without progress are tried before giving up.

Progress is less than ever before: members that take again what was reclaimed would else keep this
going without end.
"""


@contextlib.contextmanager
def soft_limits_kept(groups: CgroupDriver, before: Group) -> Iterator[None]:
    """Put the soft limits back as they were where what is done inside fails."""
    try:
        yield
    except ZonedError:
        _set_soft_limits(groups, before.zone, before.limits.high, before.limits.min)
        raise


def make_room(groups: CgroupDriver, before: Group, wanted: Limits) -> None:
    """Bring the zone's use down to `wanted.max`.

    Raises BelowUse where the kernel cannot.
    """
    if wanted.max is None or before.used is None or before.used <= wanted.max:
        return
    minimum = min(wanted.min, before.limits.min)
    _set_soft_limits(groups, before.zone, wanted.max, minimum)
    used = _reclaim_down_to(groups, before.zone, wanted.max, before.used)
    if used > wanted.max:
        raise BelowUse(
            f"zone {before.zone} uses {format_size(used)}, and the kernel could not bring that"
            f" down to {format_size(wanted.max)}; its limit stays {format_size(before.limits.max)}",
            hint="end or shrink a member, or allow swap; `zonectl show` tells what it uses",
        )


def _set_soft_limits(groups: CgroupDriver, zone: str, high: int | None, minimum: int) -> None:
    # Without hard protection (v1) nothing is in reclaim's way, and what the soft limits were is
    # not among the limits that are read back.
    if groups.protects:
        groups.set_soft_limits(zone, high=high, minimum=minimum)


def _reclaim_down_to(groups: CgroupDriver, zone: str, target: int, used: int) -> int:
    least, patience = used, _PATIENCE
    while used > target and patience:
        groups.reclaim(zone, min(SLICE, used - target))
        group = groups.group(zone)
        used = group.used if group and group.used is not None else 0
        patience = _PATIENCE if used < least else patience - 1
        least = min(least, used)
    return used
