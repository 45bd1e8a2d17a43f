# SPDX-License-Identifier: Apache-2.0
"""Programs with memory that a device knows by its address."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fakes import GIB, World, run_job
from zoned.errors import ReservationInUse
from zoned.kernel.process import find
from zoned.model.dma.held import Held, Lease
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung
from zoned.model.job import JobKind
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from zoned.engine.engine import Engine
    from zoned.model.job import Progress


def move(engine: Engine, kind: JobKind) -> Progress:
    """Attach process 7 to the zone, or detach it."""
    return run_job(engine, kind, name="db", pid=7, unit=None, cgroup=None)


def test_who_has_memory_for_a_device_keeps_it_where_it_is(world: World, engine: Engine) -> None:
    """The kernel moves all that a process has when it comes to use other nodes."""
    engine.create(ZoneSpec(name="db", size=GIB))
    world.add_process(7, "/user")
    process = find(world.machine().root, 7)
    lease = Lease(
        number=1,
        reservation="teach",
        pid=7,
        start_time=process.start_time,
        uid=0,
        size=4096,
        segments=(Span(0, 4096),),
    )
    ledger = engine.machine.ledger
    ledger.leased(lease)
    held = Held(name="teach", rung=Rung.HUGETLB, size=4096, mask=bits_mask(31), node=9)
    ledger.reserved(held)
    with pytest.raises(ReservationInUse, match="process 7 has a buffer of reservation teach on"):
        move(engine, JobKind.ATTACH)
    with pytest.raises(ReservationInUse):
        engine.enter("db", 7)
    assert world.groups.pids("db") == ()
    # It stays where it is there.
    ledger.reserved(replace(held, node=min(engine.machine.store.zones["db"].nodes)))
    engine.enter("db", 7)
    move(engine, JobKind.DETACH)
    # And a device-dax region stays anywhere.
    ledger.reserved(replace(held, rung=Rung.DEVDAX))
    assert move(engine, JobKind.ATTACH).processes == 1
