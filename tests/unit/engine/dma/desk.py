# SPDX-License-Identifier: Apache-2.0
"""A book of leases, used as the daemon does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.fake_huge import HUGE
from zoned.engine.dma.allot_buffer import Asked
from zoned.engine.dma.leases import LeaseBook
from zoned.kernel.process import Process

if TYPE_CHECKING:
    from zoned.engine.machine import Machine
    from zoned.model.dma.held import Lease

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
        self.freed: dict[str, bool] = {}
        """what was told at the last `settle`"""

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
        self.freed = self.book.forget(numbers)
        return numbers

    @property
    def numbers(self) -> list[int]:
        return [each.number for each in self.book.all]


def lent(desk: Desk, lease: Lease) -> Lease:
    # The fake's descriptors are no real ones.
    handed = desk.book.hand_out(lease)
    desk.book.confirm(handed)
    return handed.lease


def addresses(lease: Lease) -> list[int]:
    return [at for span in lease.segments for at in range(span.start, span.end, HUGE)]
