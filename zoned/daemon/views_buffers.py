# SPDX-License-Identifier: Apache-2.0
"""Buffers as they travel over the socket."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING

from zoned.api.types_buffers import BufferInfo, LeaseInfo, LeasesInfo, PoolInfo, SegmentInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zoned.engine.dma.allot_buffer import Usage
    from zoned.engine.dma.leases import Handed
    from zoned.model.dma.held import Held, Lease


def lease_info(lease: Lease, offsets: Sequence[int | None] = ()) -> LeaseInfo:
    """Return one lease; `offsets` tell where in the file each segment begins."""
    places = offsets or [None] * len(lease.segments)
    return LeaseInfo(
        number=lease.number,
        reservation=lease.reservation,
        pid=lease.pid,
        uid=lease.uid,
        user=_user(lease.uid),
        size=lease.size,
        segments=[
            SegmentInfo(address=span.start, size=span.size, offset=offset)
            for span, offset in zip(lease.segments, places, strict=True)
        ],
        ending=lease.ending,
    )


def buffer_info(handed: Handed) -> BufferInfo:
    """Return what is handed out, with the descriptors themselves."""
    return BufferInfo(
        lease=lease_info(handed.lease, handed.offsets),
        granule=handed.granule,
        file=handed.file,
        dmabuf=handed.dmabuf,
    )


def leases_info(
    leases: Iterable[Lease],
    pools: Iterable[tuple[Held, Usage | None]],
    lent: Iterable[Lease],
) -> LeasesInfo:
    """Return leases, and reservations with what of each is free; `lent` are all leases."""
    leased: dict[str, int] = {}
    for each in lent:
        leased[each.reservation] = leased.get(each.reservation, 0) + each.size
    return LeasesInfo(
        leases=[lease_info(each) for each in leases],
        pools=[_pool_info(held, leased.get(held.name, 0), found) for held, found in pools],
    )


def _pool_info(held: Held, leased: int, found: Usage | None) -> PoolInfo:
    return PoolInfo(
        reservation=held.name,
        rung=str(held.rung),
        size=held.size,
        leased=leased,
        free=None if found is None else found.free,
        largest=None if found is None else found.largest,
        runs=None if found is None else found.runs,
        fragmentation=None if found is None else round(found.fragmentation, 3),
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
