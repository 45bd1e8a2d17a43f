# SPDX-License-Identifier: Apache-2.0
"""Programs that have memory reserved for devices: a device knows it by its address, so nobody may
move it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import ReservationInUse
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.engine.machine import Machine
    from zoned.kernel.process import Process
    from zoned.model.dma.offer import Span

_LENT = frozenset({Rung.DEVDAX, Rung.HUGETLB})
"""The rungs that lend memory to programs."""


def fixed_spans(machine: Machine) -> tuple[Span, ...]:
    """Return the memory that programs may have for devices."""
    held = machine.ledger.touched.reservations.values()
    return tuple(span for each in held if each.rung in _LENT for span in each.spans)


def refuse_lessees(
    machine: Machine,
    processes: Iterable[Process],
    targets: frozenset[int],
    sources: frozenset[int] | None = None,
) -> None:
    """Raise ReservationInUse where one of the processes has a buffer on a node that it is to leave
    (one of `sources`, or any) for the targets: the kernel moves all that a process has there.

    Memory of device-dax regions never moves. `processes` may be a generator: it is not begun where
    there is no such buffer.
    """
    fixed = {
        (lease.pid, lease.start_time): held
        for lease in machine.ledger.touched.leases.values()
        if (held := machine.ledger.touched.reservations.get(lease.reservation)) is not None
        and held.rung is Rung.HUGETLB
        and held.node not in targets
        and (sources is None or held.node in sources)
    }
    if not fixed:
        return
    for process in processes:
        held = fixed.get((process.pid, process.start_time))
        if held is not None:
            raise ReservationInUse(
                f"process {process.pid} has a buffer of reservation {held.name} on node"
                f" {held.node}: its memory must stay there, and the kernel would move it",
                hint="have it give the buffer back first (zonectl dma leases), or start it in the"
                " zone",
            )
