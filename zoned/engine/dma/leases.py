# SPDX-License-Identifier: Apache-2.0
"""Buffers that programs have of reservations.

A lease is in the ledger before its memory leaves the reservation, and goes from there only when the
memory is back: what a program has mapped stays with it, whatever becomes of the lease. In between
it is `ending`, as it is before its program can have it: whoever finds it so takes the memory back.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned.engine.dma.allot_buffer import Asked, allot
from zoned.engine.dma.sources import source_of
from zoned.errors import (
    BadInput,
    LeaseGone,
    MachineError,
    NoSuchReservation,
    TooManyLeases,
    ZonedError,
)
from zoned.kernel.file_pages import addresses
from zoned.kernel.udmabuf import export
from zoned.model.dma.device import addresses_of
from zoned.model.dma.held import Lease
from zoned.model.dma.offer import without

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from zoned.engine.dma.sources import Source
    from zoned.engine.machine import Machine
    from zoned.kernel.process import Process
    from zoned.model.dma.held import Held
    from zoned.model.dma.offer import Span

_log = logging.getLogger(__name__)

_PATIENCE = 6
"""Looks after which it is asked whether memory can come back at all."""

MOST_PER_PROGRAM = 64
MOST_PER_USER = 128
MOST = 512
"""Leases at once: of one process, of one user but root, and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What the holder of a lease gets. Whoever has it closes the descriptors."""

    lease: Lease
    file: int
    """descriptor"""
    offsets: tuple[int, ...]
    """where in the file each segment begins"""
    granule: int
    """bytes that offsets and lengths of mappings are multiples of"""
    dmabuf: int | None = None
    """descriptor"""

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.file)
        if self.dmabuf is not None:
            os.close(self.dmabuf)


class LeaseBook:
    """The leases of one machine.

    `begin`, `confirm`, `end`, `end_all_of` and `forget` change the ledger, and are called by the
    one thread that does so; the others by any.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lock = threading.Lock()
        self._handing: set[int] = set()
        """leases whose memory is on its way out, so that it cannot be taken back yet"""
        self._last = 0
        self._inodes: dict[int, int] = {}
        """of the files of leases that may not be on record with theirs"""
        self._missed: dict[int, int] = {}
        """lease -> how often its memory had not come back"""
        self._lost: set[int] = set()
        """leases whose memory will not come back"""

    @property
    def all(self) -> tuple[Lease, ...]:
        """The leases, by number."""
        leases = self._machine.ledger.touched.leases
        return tuple(leases[number] for number in sorted(leases))

    @property
    def ending(self) -> tuple[Lease, ...]:
        """Those whose memory is to come back."""
        return tuple(each for each in self.all if each.ending)

    def returning(self, reservation: str) -> bool:
        """Return whether memory of a reservation is on its way back."""
        return any(each.reservation == reservation for each in self._returning)

    @property
    def _returning(self) -> list[Lease]:
        """Those that are ending, without those whose programs are about to have them."""
        with self._lock:
            handing = frozenset(self._handing)
        return [each for each in self.ending if each.number not in handing]

    def find(self, reservation: str | None, device: str | None) -> Held:
        """Return a reservation by its name, or by the address of a device that it is for.

        Raises NoSuchReservation, BadInput.
        """
        held = self._machine.ledger.touched.reservations
        if (reservation is None) == (device is None):
            raise BadInput("name either a reservation or a device")
        if reservation is not None and reservation in held:
            return held[reservation]
        if device is not None:
            addresses = addresses_of(device)
            for each in held.values():
                if addresses & set(each.devices):
                    return each
        what = f"reservation {reservation}" if device is None else f"memory for device {device}"
        known = ", ".join(sorted(held)) or "none"
        raise NoSuchReservation(f"there is no {what}", hint=f"reservations: {known}")

    def spans(self, held: Held) -> tuple[Span, ...]:
        """Return the memory that can be lent, or is. Raises as `source_of` does."""
        return source_of(self._machine, held).spans()

    def free(self, held: Held, spans: Iterable[Span]) -> tuple[Span, ...]:
        """Return what of a reservation's memory is in no lease."""
        taken = [span for each in self.of(held.name) for span in each.segments]
        return without(spans, taken)

    def of(self, reservation: str) -> tuple[Lease, ...]:
        """Return the leases of one reservation, also those that are ending."""
        return tuple(each for each in self.all if each.reservation == reservation)

    def begin(
        self, name: str, process: Process, uid: int, asked: Asked, spans: Iterable[Span]
    ) -> Lease:
        """Set memory aside for a program, and record that. To be followed by `hand_out`, and by
        `confirm` before the program gets it.

        `spans` is what can be lent: looking takes its time, and is for another thread. Raises
        PoolExhausted, PoolBusy, TooManyLeases, and what `find` and `source_of` do.
        """
        held = self.find(name, None)
        self._refuse_many(process, uid)
        source = source_of(self._machine, held)
        in_region = [each for each in self.all if self._region_of(each) == held.region]
        source.refuse(uid, in_region if held.region is not None else ())
        segments = allot(self.free(held, spans), asked, source.granule)
        lease = Lease(
            number=self._next(),
            reservation=held.name,
            pid=process.pid,
            start_time=process.start_time,
            uid=uid,
            size=sum(span.size for span in segments),
            segments=segments,
            ending=True,
        )
        with self._lock:
            self._handing.add(lease.number)
        self._machine.ledger.leased(lease)
        return lease

    def hand_out(self, lease: Lease, *, dmabuf: bool = False) -> Handed:
        """Return a file with the lease's memory, wiped; with `dmabuf` also as one.

        Raises MachineError and its kinds; the lease is ending then.
        """
        try:
            held = self.find(lease.reservation, None)
            source = source_of(self._machine, held)
            if dmabuf:
                source.refuse_export()
            offsets = source.offsets(lease)
            file = source.lend(lease)
            inode = self._inodes[lease.number] = _inode_of(file)
            handed = Handed(
                lease=replace(lease, ending=False, inode=inode),
                file=file,
                offsets=offsets,
                granule=source.granule,
            )
            return self._exported(handed) if dmabuf else handed
        except ZonedError:
            self._over(lease.number)
            raise

    def _exported(self, handed: Handed) -> Handed:
        root, lease = self._machine.root, handed.lease
        try:
            handed = replace(handed, dmabuf=export(root, handed.file, lease.size))
            # To pin it, the kernel may have had to move a page out of movable memory.
            found = addresses(root, handed.file, handed.granule, lease.size)
            if found != pages_of(lease.segments, handed.granule):
                raise MachineError("the memory moved when the kernel pinned it for a dma-buf")
        except MachineError:
            handed.close()
            raise
        return handed

    def confirm(self, handed: Handed) -> None:
        """Record that a program is about to have what was handed out."""
        self._machine.ledger.leased(handed.lease)
        self._over(handed.lease.number)

    def _over(self, number: int) -> None:
        with self._lock:
            self._handing.discard(number)

    def end(self, number: int, pid: int | None = None) -> None:
        """End a lease; its memory is free when `take_back` finds it so. `pid`: only of this one.

        Raises LeaseGone where there is none.
        """
        lease = self._machine.ledger.touched.leases.get(number)
        if lease is None or lease.ending or pid not in {None, lease.pid}:
            raise LeaseGone(f"there is no lease {number}", hint="see: zonectl dma leases")
        self._machine.ledger.leased(replace(lease, ending=True))

    def end_all_of(self, pid: int, start_time: int) -> None:
        """End the leases of a process that is no more."""
        for lease in self.all:
            if (lease.pid, lease.start_time) == (pid, start_time) and not lease.ending:
                _log.debug("process %d ended, and with it lease %d", pid, lease.number)
                self.end(lease.number)

    def take_back(self) -> tuple[int, ...]:
        """Return which of the ending leases have their memory back, or no reservation any more."""
        return tuple(lease.number for lease in self._returning if self._returned(lease))

    def forget(self, numbers: Collection[int]) -> dict[str, bool]:
        """Forget leases whose memory is free; return the reservations that they were of, and
        whether one has lost memory.
        """
        over = [lease for lease in self.all if lease.number in numbers]
        found = dict.fromkeys((lease.reservation for lease in over), False)
        for lease in over:
            found[lease.reservation] |= lease.number in self._lost
            self._machine.ledger.lease_ended(lease.number)
            self._inodes.pop(lease.number, None)
            self._missed.pop(lease.number, None)
            self._lost.discard(lease.number)
        return found

    def _returned(self, lease: Lease) -> bool:
        held = self._machine.ledger.touched.reservations.get(lease.reservation)
        if held is None:
            return True
        try:
            source = source_of(self._machine, held)
            return source.returned(lease) or self._is_lost(source, lease)
        except ZonedError as error:
            _log.warning("cannot take lease %d back: [%s] %s", lease.number, error.code, error)
            return False

    def _is_lost(self, source: Source, lease: Lease) -> bool:
        # What was closed this moment is not free at once.
        missed = self._missed[lease.number] = self._missed.get(lease.number, 0) + 1
        inode = self._inodes.get(lease.number, lease.inode)
        if missed < _PATIENCE or not source.lost(lease, inode):
            return False
        _log.warning(
            "lease %d is over, but the kernel gave its memory to others or moved it", lease.number
        )
        self._lost.add(lease.number)
        return True

    def _region_of(self, lease: Lease) -> str | None:
        held = self._machine.ledger.touched.reservations.get(lease.reservation)
        return None if held is None else held.region

    def _refuse_many(self, process: Process, uid: int) -> None:
        own = [each for each in self.all if each.uid == uid]
        programs = sum(
            (each.pid, each.start_time) == (process.pid, process.start_time) for each in own
        )
        if programs >= MOST_PER_PROGRAM:
            raise TooManyLeases(f"process {process.pid} has {programs} leases already")
        if len(self.all) >= MOST or (uid != 0 and len(own) >= MOST_PER_USER):
            count = len(own) if uid != 0 else len(self.all)
            raise TooManyLeases(f"there are {count} leases already", hint="zonectl dma leases")

    def _next(self) -> int:
        self._last = max(self._last, *self._machine.ledger.touched.leases, 0) + 1
        return self._last


def pages_of(spans: Iterable[Span], page: int) -> tuple[int, ...]:
    """Return the address of each page in the spans, in their order."""
    return tuple(at for span in spans for at in range(span.start, span.end, page))


def _inode_of(file: int) -> int:
    return os.fstat(file).st_ino
