# SPDX-License-Identifier: Apache-2.0
"""Where buffers for programs come from: one class for each rung that can lend its memory.

What a program has mapped cannot be taken from it. So memory of a lease that is over only counts as
free when it is seen to be so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zoned.errors import KernelOnly, MachineError, PoolBusy, Unsupported
from zoned.kernel.dax import find_dax
from zoned.kernel.dax_file import alignment, mapped_parts, open_anywhere, open_region, wipe
from zoned.kernel.open_files import others_are_sent_some, others_have
from zoned.kernel.udmabuf import moves_to_pin
from zoned.model.dma.offer import Span, without
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zoned.engine.machine import Machine
    from zoned.model.dma.held import Held, Lease


FILE = "/memfd:zoned"
"""as the kernel shows the files that a `HugePool` lends"""


class Pool(Protocol):
    """What is needed of a `zoned.kernel.hugetlb.HugePool`."""

    @property
    def spans(self) -> tuple[Span, ...]: ...
    def gather(self, spans: Iterable[Span]) -> tuple[Span, ...]: ...
    def lend(self, spans: Sequence[Span]) -> int: ...


class Source(Protocol):
    """The memory of one reservation. The methods may be called by several threads at a time, but
    for `refuse`, which the one that changes the ledger calls. All may raise MachineError.
    """

    granule: int
    """bytes that addresses and sizes of segments are multiples of"""

    def spans(self) -> tuple[Span, ...]:
        """Return what may be lent, or is."""

    def refuse(self, uid: int, leases: Sequence[Lease]) -> None:
        """Raise PoolBusy where this user cannot have memory beside these leases.

        What is needed to know it the next time is in the ledger when this returns.
        """

    def lend(self, lease: Lease) -> int:
        """Return a descriptor of a file with the lease's memory, wiped."""

    def refuse_export(self) -> None:
        """Raise Unsupported where buffers cannot become dma-bufs."""

    def offsets(self, lease: Lease) -> tuple[int, ...]:
        """Return where in that file each segment begins."""

    def returned(self, lease: Lease) -> bool:
        """Return whether a lease's memory is free again; take it back where that has to be done."""

    def lost(self, lease: Lease, inode: int | None) -> bool:
        """Return whether memory that did not come back never will: nobody has the file any more,
        as far as can be seen. `inode` is the file's, where it is known.
        """


class DaxSource:
    """A device-dax region. Its descriptor reaches all of it, whatever part was lent."""

    def __init__(self, machine: Machine, held: Held, region: str) -> None:
        self._machine = machine
        self._held = held
        self._name = region
        self.granule = alignment(machine.root, region)

    def spans(self) -> tuple[Span, ...]:
        return self._held.spans

    def refuse(self, uid: int, leases: Sequence[Lease]) -> None:
        ledger = self._machine.ledger
        if any(each.uid != uid for each in leases):
            raise PoolBusy(
                f"another user has buffers in {self._name}, and whoever has one reaches all of it",
                hint="zonectl dma leases shows who",
            )
        last = ledger.touched.dax_users.get(self._name)
        if last not in {None, uid} and open_anywhere(self._machine.root, self._name):
            raise PoolBusy(
                f"another user had buffers in {self._name}, and may still have it open",
                hint="nobody may have a device-dax region open when it goes to another user",
            )
        ledger.dax_lent_to(self._name, uid)

    def lend(self, lease: Lease) -> int:
        file = open_region(self._machine.root, self._name)
        for offset, segment in zip(self.offsets(lease), lease.segments, strict=True):
            wipe(file, offset, segment.size)
        return file

    def offsets(self, lease: Lease) -> tuple[int, ...]:
        found, position = {}, 0
        for span in (Span(*each) for each in find_dax(self._machine.root, self._name).ranges):
            for segment in lease.segments:
                if span.start <= segment.start < span.end:
                    found[segment] = position + segment.start - span.start
            position += span.size
        if len(found) < len(lease.segments):
            raise MachineError(f"{self._name} is not where it was when lease {lease.number} began")
        return tuple(found[segment] for segment in lease.segments)

    def returned(self, lease: Lease) -> bool:
        used = [Span(*part) for part in mapped_parts(self._machine.root, self._name)]
        sizes = (segment.size for segment in lease.segments)
        mine = tuple(map(Span, self.offsets(lease), sizes))
        return without(mine, used) == tuple(sorted(mine))

    def refuse_export(self) -> None:
        raise Unsupported("memory of the rung devdax cannot be a dma-buf")

    def lost(self, lease: Lease, inode: int | None) -> bool:
        return False


class HugeSource:
    """Huge pages. Each buffer is a file of its own, of its own pages."""

    def __init__(self, machine: Machine, held: Held, pool: Pool, page: int) -> None:
        self._machine = machine
        self._held = held
        self._pool = pool
        self.granule = page

    def spans(self) -> tuple[Span, ...]:
        return self._pool.spans

    def refuse(self, uid: int, leases: Sequence[Lease]) -> None:
        """Nobody stands in another's way."""

    def lend(self, lease: Lease) -> int:
        return self._pool.lend(lease.segments)

    def offsets(self, lease: Lease) -> tuple[int, ...]:
        found = [0]
        for segment in lease.segments:
            found.append(found[-1] + segment.size)
        return tuple(found[:-1])

    def returned(self, lease: Lease) -> bool:
        self._pool.gather(lease.segments)
        return not without(lease.segments, self._pool.spans)

    def refuse_export(self) -> None:
        # The blocks of this rung are movable memory. A page that is moved leaves the pool for good.
        if self._held.blocks and moves_to_pin(self._machine.root):
            raise Unsupported(
                f"buffers of reservation {self._held.name} cannot be dma-bufs: this kernel would"
                " move their memory to pin it"
            )

    def lost(self, lease: Lease, inode: int | None) -> bool:
        root = self._machine.root
        return not others_have(root, FILE, inode) and not others_are_sent_some(root)


def source_of(machine: Machine, held: Held) -> Source:
    """Return what lends a reservation's memory.

    Raises KernelOnly for rungs that serve drivers of the kernel; PoolBusy while it is being set up
    or taken down; MachineError.
    """
    if held.rung not in {Rung.DEVDAX, Rung.HUGETLB}:
        raise KernelOnly(
            f"reservation {held.name} is on the rung {held.rung}, which serves drivers of the"
            " kernel",
            hint="programs get buffers on the rungs devdax and hugetlb",
        )
    if not held.standing:
        raise PoolBusy(f"reservation {held.name} is being set up or taken down")
    if held.rung is Rung.DEVDAX and held.region is not None:
        return DaxSource(machine, held, held.region)
    if held.page is None:
        raise Unsupported(f"the huge pages of reservation {held.name} are not here")
    leases = machine.ledger.touched.leases.values()
    pool = machine.pools.pool(machine.root, held, leases)
    return HugeSource(machine, held, pool, held.page)
