# SPDX-License-Identifier: Apache-2.0
"""Buffers that programs have of reservations: nobody shares a byte, and all comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.desk import NAME, US, Desk, addresses
from tests.unit.engine.dma.fakes import (
    BASE,
    PAGES,
    huge_held,
)
from tests.unit.fake_huge import HUGE, FakeHuge
from tests.unit.fakes import make_world
from zoned.engine.dma import leases as leases_module
from zoned.engine.dma import sources as sources_module
from zoned.engine.dma.pools import HugePools
from zoned.errors import (
    BadInput,
    KernelOnly,
    LeaseGone,
    MachineError,
    NoSuchReservation,
    PoolBusy,
    PoolExhausted,
    TooManyLeases,
)
from zoned.model.dma.held import Held
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from pathlib import Path


def test_buffer_has_the_pages_that_are_told(desk: Desk, huge: FakeHuge) -> None:
    lease = desk.begin(2.5)
    assert desk.machine.ledger.touched.leases == {lease.number: lease}
    assert (lease.size, lease.uid, lease.pid, lease.reservation) == (3 * HUGE, US, 5, NAME)
    handed = desk.book.hand_out(lease)
    assert list(huge.files[handed.file].pages.values()) == addresses(lease)
    assert huge.files[handed.file].sealed
    assert (handed.offsets, handed.granule, handed.dmabuf) == ((0,), HUGE, None)


def test_offsets_of_several_segments(desk: Desk, huge: FakeHuge) -> None:
    first = [desk.alloc(1) for _ in range(PAGES)]
    for lease in (first[0], first[1], first[3]):
        desk.book.end(lease.number)
        huge.files[1 + lease.number - 1].let_go()
    assert len(desk.settle()) == 3
    lease = desk.begin(3)
    assert lease.segments == (Span(BASE, 2 * HUGE), Span(BASE + 3 * HUGE, HUGE))
    assert desk.book.hand_out(lease).offsets == (0, 2 * HUGE)


def test_nobody_shares_a_page(desk: Desk, huge: FakeHuge) -> None:
    taken = [at for pages in (3, 1, 4) for at in addresses(desk.alloc(pages))]
    assert sorted(taken) == [BASE + number * HUGE for number in range(PAGES)]
    with pytest.raises(PoolExhausted, match="2MiB cannot be had"):
        desk.begin(1)
    assert not huge.free


def test_memory_is_free_when_it_is_back_and_not_before(desk: Desk, huge: FakeHuge) -> None:
    lease = desk.alloc(PAGES)
    desk.book.end(lease.number)
    assert desk.book.ending == (replace(lease, ending=True),)
    assert desk.settle() == ()
    with pytest.raises(PoolExhausted):
        desk.begin(1)
    huge.files[-1].let_go()
    assert desk.settle() == (lease.number,)
    assert desk.numbers == []
    assert addresses(desk.alloc(PAGES)) == addresses(lease)


def test_what_is_on_its_way_out_is_not_taken_back(desk: Desk, huge: FakeHuge) -> None:
    lease = desk.begin(1)
    assert lease.ending
    assert desk.settle() == ()
    handed = desk.book.hand_out(lease)
    assert desk.settle() == ()
    desk.book.confirm(handed)
    assert desk.book.all == (handed.lease,)
    assert not handed.lease.ending
    assert desk.settle() == ()
    desk.book.end(lease.number)
    huge.files[-1].let_go()
    assert desk.settle() == (lease.number,)


def test_daemon_that_died_while_it_handed_out(desk: Desk, huge: FakeHuge, tmp_path: Path) -> None:
    lease = desk.begin(2)
    desk.machine.pools.close()
    again = Desk(make_world(tmp_path).machine())
    again.machine.pools = HugePools(huge.pool)
    assert again.settle() == (lease.number,)
    assert addresses(again.alloc(PAGES)) == [BASE + number * HUGE for number in range(PAGES)]


def test_lease_that_could_not_be_handed_out(desk: Desk, huge: FakeHuge) -> None:
    lease = desk.begin(2)
    huge.surplus = 1
    huge.tell()
    with pytest.raises(MachineError, match="beyond its pool"):
        desk.book.hand_out(lease)
    assert desk.settle() == (lease.number,)


def test_leases_of_a_program_end_with_it(desk: Desk, huge: FakeHuge) -> None:
    mine, other = desk.alloc(1), desk.alloc(1, pid=6)
    desk.alloc(1)
    desk.book.end_all_of(5, 8)
    assert not desk.book.ending
    desk.book.end_all_of(5, 7)
    assert [each.pid for each in desk.book.ending] == [5, 5]
    huge.files[1].let_go()
    assert desk.settle() == (mine.number,)
    desk.book.end_all_of(5, 7)
    assert other in desk.book.all


def test_numbers_are_not_used_again(desk: Desk, huge: FakeHuge) -> None:
    lease = desk.alloc(1)
    desk.book.end(lease.number)
    huge.files[-1].let_go()
    desk.settle()
    assert desk.alloc(1).number == lease.number + 1


@pytest.mark.usefixtures("huge")
def test_end_of_what_is_not_there(desk: Desk) -> None:
    lease = desk.alloc(1)
    with pytest.raises(LeaseGone):
        desk.book.end(lease.number, pid=6)
    desk.book.end(lease.number, pid=5)
    with pytest.raises(LeaseGone):
        desk.book.end(lease.number)
    with pytest.raises(LeaseGone):
        desk.book.end(99)


def test_leases_outlive_a_restart(desk: Desk, huge: FakeHuge, tmp_path: Path) -> None:
    lease = desk.alloc(3)
    desk.machine.pools.close()
    again = Desk(make_world(tmp_path).machine())
    again.machine.pools = desk.machine.pools
    assert again.book.all == (lease,)
    rest = again.alloc(PAGES - 3)
    assert not set(addresses(rest)) & set(addresses(lease))
    again.book.end(lease.number)
    assert again.settle() == ()
    next(file for file in huge.files if file.sealed).let_go()
    assert again.settle() == (lease.number,)
    assert rest.number > lease.number


@pytest.mark.usefixtures("huge")
def test_lease_of_a_reservation_that_is_gone(desk: Desk) -> None:
    lease = desk.alloc(1)
    desk.book.end(lease.number)
    desk.machine.ledger.unreserved(NAME)
    assert desk.settle() == (lease.number,)


@pytest.mark.usefixtures("huge")
def test_pool_that_cannot_be_looked_at(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    lease = desk.alloc(1)
    desk.book.end(lease.number)
    desk.machine.ledger.reserved(replace(huge_held(), standing=False))
    assert desk.settle() == ()
    assert f"cannot take lease {lease.number} back: [pool-busy]" in caplog.text


@pytest.mark.usefixtures("huge")
def test_so_many_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "MOST_PER_PROGRAM", 2)
    monkeypatch.setattr(leases_module, "MOST_PER_USER", 3)
    monkeypatch.setattr(leases_module, "MOST", 6)
    desk.alloc(1)
    desk.alloc(1)
    with pytest.raises(TooManyLeases, match="process 5 has 2"):
        desk.begin(1)
    desk.alloc(1, pid=6)
    with pytest.raises(TooManyLeases, match="there are 3 leases already"):
        desk.begin(1, pid=6)
    for pid in (7, 8):
        desk.alloc(1, uid=0, pid=pid)
    desk.alloc(1, uid=0, pid=9)
    with pytest.raises(TooManyLeases, match="there are 6"):
        desk.begin(1, uid=0, pid=9)


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("device", ["0000:03:00.0", "03:00.0"])
def test_reservation_by_device(desk: Desk, device: str) -> None:
    assert desk.book.find(None, device).name == NAME
    assert desk.book.find(NAME, None).name == NAME
    with pytest.raises(NoSuchReservation, match=r"no memory for device 0000:09:00\.0"):
        desk.book.find(None, "0000:09:00.0")
    with pytest.raises(NoSuchReservation, match="no reservation x") as caught:
        desk.book.find("x", None)
    assert caught.value.hint == "reservations: capture"
    for both in ((None, None), (NAME, device)):
        with pytest.raises(BadInput, match="either"):
            desk.book.find(*both)


@pytest.mark.parametrize("rung", [Rung.CMA, Rung.LOWMEM, Rung.BLOCKS, Rung.IOMMU])
def test_rungs_for_drivers_lend_nothing(desk: Desk, rung: Rung) -> None:
    desk.machine.ledger.reserved(Held(name=NAME, rung=rung, size=1, mask=1, standing=True))
    with pytest.raises(KernelOnly, match=f"on the rung {rung}"):
        desk.begin(1)


@pytest.mark.usefixtures("huge")
def test_reservation_that_does_not_stand(desk: Desk) -> None:
    desk.machine.ledger.reserved(replace(huge_held(), standing=False))
    with pytest.raises(PoolBusy, match="being set up"):
        desk.begin(1)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("anybody", [False, True])
def test_memory_that_cannot_come_back(
    desk: Desk,
    huge: FakeHuge,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    anybody: bool,
    sent: bool,
) -> None:
    """The kernel moved it while the program had it."""
    asked = []

    def others_have(_: object, name: str, inode: int | None) -> bool:
        asked.append((name, inode))
        return anybody

    monkeypatch.setattr(sources_module, "others_have", others_have)
    monkeypatch.setattr(sources_module, "others_are_sent_some", lambda _: sent)
    lease = desk.alloc(1)
    desk.book.end(lease.number)
    for _ in range(5):
        assert desk.settle() == ()
    assert asked == []
    stays = anybody or sent
    assert desk.settle() == (() if stays else (lease.number,))
    assert asked == [("/memfd:zoned", 70 + len(huge.files) - 1)]
    assert ("moved it" in caplog.text) is not stays
    assert desk.freed == ({} if stays else {lease.reservation: True})
