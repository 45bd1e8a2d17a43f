# SPDX-License-Identifier: Apache-2.0
"""Pools of huge pages, by reservation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_huge import HUGE, FakeHuge
from zoned.engine.dma.pools import HugePools
from zoned.errors import Bug, MachineError
from zoned.kernel.root import sysroot
from zoned.model.dma.held import Held, Lease
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from pathlib import Path

MASK = 16 * HUGE - 1
HELD = Held(
    name="scsi",
    rung=Rung.HUGETLB,
    size=4 * HUGE,
    mask=MASK,
    node=0,
    page=HUGE,
    spans=(Span(HUGE, 2 * HUGE), Span(5 * HUGE, 2 * HUGE)),
)


def lease(number: int, *places: int, of: str = "scsi") -> Lease:
    return Lease(
        number=number,
        reservation=of,
        pid=1,
        start_time=2,
        uid=3,
        size=len(places) * HUGE,
        segments=tuple(Span(place * HUGE, HUGE) for place in places),
    )


@pytest.fixture
def huge(tmp_path: Path) -> FakeHuge:
    found = FakeHuge(tmp_path)
    found.add([number * HUGE for number in (30, 8, 1, 2, 9, 5, 6)])
    return found


def held_pages(pools: HugePools, huge: FakeHuge, held: Held = HELD, *leases: Lease) -> list[int]:
    pool = pools.pool(sysroot(huge.folder), held, leases)
    return sorted(span.start // HUGE for span in pool.spans)


def test_a_pool_has_the_pages_on_record(huge: FakeHuge) -> None:
    pools = HugePools(huge.pool)
    assert held_pages(pools, huge) == [1, 2, 5, 6]
    root = sysroot(huge.folder)
    assert pools.pool(root, HELD, ()) is pools.pool(root, HELD, ())
    pools.end("scsi")
    pools.end("scsi")
    assert len(huge.free) == 7


def test_pages_in_buffers_are_not_fetched(huge: FakeHuge) -> None:
    leases = (lease(1, 2, 5), lease(2, 6, of="other"))
    assert held_pages(HugePools(huge.pool), huge, HELD, *leases) == [1, 6]


def test_a_pool_comes_out_short_where_pages_are_gone(huge: FakeHuge) -> None:
    huge.free.remove(2 * HUGE)
    pools = HugePools(huge.pool)
    assert pools.known("scsi") is None
    assert held_pages(pools, huge) == [1, 5, 6]
    assert sorted(huge.free) == [8 * HUGE, 9 * HUGE, 30 * HUGE]
    assert pools.known("scsi") is not None


def test_each_reservation_has_its_own(huge: FakeHuge) -> None:
    pools = HugePools(huge.pool)
    first = Held(name="a", rung=Rung.HUGETLB, size=HUGE, mask=MASK, node=0, page=HUGE)
    assert held_pages(pools, huge, first) == []
    assert held_pages(pools, huge) == [1, 2, 5, 6]
    pools.close()
    assert len(huge.free) == 7


def test_a_reservation_of_another_kind_has_no_pool(huge: FakeHuge) -> None:
    held = Held(name="a", rung=Rung.LOWMEM, size=HUGE, mask=MASK)
    with pytest.raises(Bug):
        HugePools(huge.pool).pool(sysroot(huge.folder), held, ())


def test_a_pool_that_cannot_be_filled_holds_nothing(
    huge: FakeHuge, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = HugePools(huge.pool)

    def fail(*_: object) -> int:
        raise MachineError("no")

    with monkeypatch.context() as patch:
        patch.setattr("zoned.kernel.hugetlb.HugePool.gather", fail)
        with pytest.raises(MachineError):
            pools.pool(sysroot(huge.folder), HELD, ())
    assert len(huge.free) == 7
    assert held_pages(pools, huge) == [1, 2, 5, 6]
