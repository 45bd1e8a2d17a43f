# SPDX-License-Identifier: Apache-2.0
"""Buffers that programs have of reservations: nobody shares a byte, and all comes back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.fakes import (
    BASE,
    DAX,
    DAX_BASE,
    PAGES,
    add_dax,
    add_huge,
    dax_held,
    huge_held,
    map_region,
)
from tests.unit.fake_huge import HUGE, FakeHuge
from tests.unit.fake_sys import write
from tests.unit.fakes import make_world
from zoned.engine.dma import leases as leases_module
from zoned.engine.dma import sources as sources_module
from zoned.engine.dma.allot_buffer import Asked
from zoned.engine.dma.leases import LeaseBook
from zoned.engine.dma.pools import HugePools
from zoned.errors import (
    BadInput,
    KernelOnly,
    KernelRefused,
    LeaseGone,
    MachineError,
    NoSuchReservation,
    PoolBusy,
    PoolExhausted,
    TooManyLeases,
    Unsupported,
)
from zoned.kernel.process import Process
from zoned.model.dma.held import Held, Lease
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.engine.machine import Machine

NAME = "capture"
US, OTHER = 1000, 1001


def program(pid: int = 5) -> Process:
    return Process(pid=pid, start_time=7, name="x", uid=US, ppid=1)


class Desk:
    """A book, used as the daemon does."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.book = LeaseBook(machine)
        self.files: list[int] = []

    def begin(
        self, pages: float, name: str = NAME, *, uid: int = US, pid: int = 5, align: int = 1
    ) -> Lease:
        spans = self.book.spans(self.book.find(name, None))
        asked = Asked(size=int(pages * HUGE), align=align)
        return self.book.begin(name, program(pid), uid, asked, spans)

    def alloc(self, pages: float, name: str = NAME, *, uid: int = US, pid: int = 5) -> Lease:
        handed = self.book.hand_out(self.begin(pages, name, uid=uid, pid=pid))
        self.files.append(handed.file)
        self.book.confirm(handed)
        return handed.lease

    def settle(self) -> tuple[int, ...]:
        numbers = self.book.take_back()
        self.book.forget(numbers)
        return numbers

    @property
    def numbers(self) -> list[int]:
        return [each.number for each in self.book.all]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(make_world(tmp_path).machine())
    yield found
    for file in found.files:
        os.close(file)


@pytest.fixture
def huge(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHuge:
    """A pool of huge pages; what is lent is given back by `FakeFile.let_go`."""
    made = add_huge(desk.machine, tmp_path)
    monkeypatch.setattr(leases_module, "_inode_of", lambda file: 70 + file)
    monkeypatch.setattr(Desk, "alloc", lambda self, *a, **k: _lent(self, self.begin(*a, **k)))
    return made


def _lent(desk: Desk, lease: Lease) -> Lease:
    # The fake's descriptors are no real ones.
    handed = desk.book.hand_out(lease)
    desk.book.confirm(handed)
    return handed.lease


def addresses(lease: Lease) -> list[int]:
    return [at for span in lease.segments for at in range(span.start, span.end, HUGE)]


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
    assert desk.book.all == (replace(lease, ending=False),)
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


def test_dma_buf_of_what_cannot_be_one(desk: Desk, tmp_path: Path) -> None:
    add_dax(desk.machine, tmp_path)
    lease = desk.begin(1, "scsi")
    with pytest.raises(Unsupported, match="rung devdax cannot be a dma-buf"):
        desk.book.hand_out(lease, dmabuf=True)


@pytest.mark.usefixtures("huge")
def test_no_dma_buf_where_the_kernel_would_move_the_memory(desk: Desk, tmp_path: Path) -> None:
    desk.machine.ledger.reserved(replace(huge_held(), blocks=(2,)))
    write(tmp_path, {"proc/kallsyms": "0 T __pfx_memfd_pin_folios\n0 T memfd_pin_folios\n"})
    lease = desk.begin(1)
    with pytest.raises(Unsupported, match="would move their memory"):
        desk.book.hand_out(lease, dmabuf=True)
    assert desk.settle() == (lease.number,)
    write(tmp_path, {"proc/kallsyms": "0 T __pfx_memfd_pin_folios\n0 T other [module]\n"})
    with pytest.raises(Unsupported, match="no dma-bufs here"):
        desk.book.hand_out(desk.begin(1), dmabuf=True)


@pytest.mark.parametrize("anybody", [False, True])
def test_memory_that_cannot_come_back(
    desk: Desk,
    huge: FakeHuge,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    anybody: bool,
) -> None:
    """The kernel moved it while the program had it."""
    asked = []

    def others_have(_: object, name: str, inode: int | None) -> bool:
        asked.append((name, inode))
        return anybody

    monkeypatch.setattr(sources_module, "others_have", others_have)
    lease = desk.alloc(1)
    desk.book.end(lease.number)
    for _ in range(5):
        assert desk.settle() == ()
    assert asked == []
    assert desk.settle() == (() if anybody else (lease.number,))
    assert asked == [("/memfd:zoned", 70 + len(huge.files) - 1)]
    assert ("moved it" in caplog.text) is not anybody


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("moved", [False, True])
def test_dma_buf_is_of_the_same_pages(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, moved: bool
) -> None:
    lease = desk.begin(2)
    exported: list[int] = []
    file, dmabuf = os.pipe()
    found = (BASE, BASE + (5 if moved else 1) * HUGE)

    def fake_export(_: object, __: int, size: int) -> int:
        exported.append(size)
        return dmabuf

    monkeypatch.setattr(sources_module.HugeSource, "lend", lambda *_: file)
    monkeypatch.setattr(leases_module, "export", fake_export)
    monkeypatch.setattr(leases_module, "addresses", lambda *_: found)
    if moved:
        with pytest.raises(MachineError, match="moved when the kernel pinned it"):
            desk.book.hand_out(lease, dmabuf=True)
    else:
        handed = desk.book.hand_out(lease, dmabuf=True)
        assert (handed.file, handed.dmabuf) == (file, dmabuf)
        handed.close()
    assert exported == [2 * HUGE]
    for each in (file, dmabuf):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each)


@pytest.mark.usefixtures("huge")
def test_kernel_that_makes_no_dma_buf(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = desk.begin(1)
    file, other = os.pipe()
    os.close(other)
    monkeypatch.setattr(sources_module.HugeSource, "lend", lambda *_: file)
    with pytest.raises(Unsupported, match="no dma-bufs here"):
        desk.book.hand_out(lease, dmabuf=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_region_is_lent_in_parts_and_wiped(desk: Desk, tmp_path: Path) -> None:
    region = add_dax(desk.machine, tmp_path)
    region.write_bytes(b"x" * 16 * HUGE)
    lease = desk.begin(10, "scsi")
    assert lease.segments == (
        Span(DAX_BASE + 4 * HUGE, 2 * HUGE),
        Span(DAX_BASE + (1 << 28), 8 * HUGE),
    )
    handed = desk.book.hand_out(lease)
    desk.files.append(handed.file)
    assert handed.offsets == (4 * HUGE, 8 * HUGE)
    data = region.read_bytes()
    assert data == b"x" * 4 * HUGE + bytes(2 * HUGE) + b"x" * 2 * HUGE + bytes(8 * HUGE)
    assert Path(f"/proc/self/fd/{handed.file}").readlink() == region


def test_part_of_a_region_is_free_when_nobody_maps_it(desk: Desk, tmp_path: Path) -> None:
    region = add_dax(desk.machine, tmp_path)
    lease = desk.alloc(2, "scsi")
    (offset,) = sources_module.source_of(desk.machine, dax_held()).offsets(lease)
    map_region(tmp_path, 5, region, offset + HUGE, HUGE)
    desk.book.end(lease.number)
    assert desk.settle() == ()
    map_region(tmp_path, 5, region, offset + 2 * HUGE, HUGE)
    assert desk.settle() == (lease.number,)


def test_region_is_one_users_at_a_time(desk: Desk, tmp_path: Path) -> None:
    region = add_dax(desk.machine, tmp_path)
    one, two = desk.alloc(1, "scsi"), desk.alloc(1, "scsi", pid=6)
    assert not set(one.segments) & set(two.segments)
    with pytest.raises(PoolBusy, match=r"another user has buffers in dax0\.0"):
        desk.begin(1, "scsi", uid=OTHER)
    for lease in (one, two):
        desk.book.end(lease.number)
    with pytest.raises(PoolBusy, match="another user has buffers"):
        desk.begin(1, "scsi", uid=OTHER)
    desk.settle()
    write(tmp_path, {"sys/module/device_dax/refcnt": "2"})
    with pytest.raises(PoolBusy, match="may still have it open"):
        desk.begin(1, "scsi", uid=OTHER)
    # Whoever had it last may go on.
    again = desk.alloc(1, "scsi")
    desk.book.end(again.number)
    desk.settle()
    write(tmp_path, {"sys/module/device_dax/refcnt": "0"})
    desk.alloc(1, "scsi", uid=OTHER)
    assert desk.machine.ledger.touched.dax_users == {DAX: OTHER}
    assert region.exists()


def test_region_that_cannot_be_opened(desk: Desk, tmp_path: Path) -> None:
    add_dax(desk.machine, tmp_path).unlink()
    lease = desk.begin(1, "scsi")
    with pytest.raises(KernelRefused, match="cannot open"):
        desk.book.hand_out(lease)
    assert desk.settle() == (lease.number,)


def test_region_that_was_made_anew_elsewhere(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_dax(desk.machine, tmp_path)
    lease = desk.alloc(1, "scsi")
    desk.book.end(lease.number)
    for number in (0, 1):
        place = f"sys/bus/dax/devices/{DAX}/mapping{number}"
        write(tmp_path, {f"{place}/start": "0x1000", f"{place}/end": "0x1fff"})
    assert desk.settle() == ()
    assert "dax0.0 is not where it was when lease 1 began" in caplog.text
