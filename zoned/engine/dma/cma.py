# SPDX-License-Identifier: Apache-2.0
"""The rung `cma`: a part of the kernel's own areas for contiguous memory, counted.

Nothing of the machine is changed: the kernel moves other pages out of an area when a driver asks
for contiguous memory. What is watched is that nobody is promised more than lies there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import RungFails
from zoned.kernel.dma_offer import read_offer
from zoned.model.dma.rung import Rung
from zoned.units import format_size

if TYPE_CHECKING:
    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.dma.held import Held


class Cma:
    """See Holder."""

    def hold(self, machine: Machine, hands: Hands, held: Held) -> Held:
        """Count the memory as the reservation's. Raises RungFails."""
        offer = read_offer(machine.root, blocks=False)
        fault = None if held.standing else _fault(machine, held, offer.cma_below(held.mask))
        if fault:
            raise RungFails(fault)
        free = sum(zone.free_cma for zone in offer.zones or ())
        if free < held.size:
            hands.note(
                f"{format_size(free)} of CMA are free at the moment; the kernel moves what is in"
                " the rest elsewhere when a driver asks for it"
            )
        return held

    def faults(self, machine: Machine, held: Held) -> list[str]:
        """See Holder."""
        offer = read_offer(machine.root, blocks=False)
        # Areas stay where they are. The log that told where may be gone since.
        known = offer.areas is not None
        fault = _fault(machine, held, offer.cma_below(held.mask) if known else offer.cma)
        return [fault] if fault else []

    def release(self, machine: Machine, hands: Hands, held: Held) -> None:
        """See Holder. Nothing was changed."""


def _fault(machine: Machine, held: Held, there: int) -> str | None:
    """Return what is wrong with so much below the reservation's limit."""
    reservations = machine.ledger.touched.reservations.values()
    # Those that reach less far have their part of what this one reaches.
    wanted = sum(
        each.size for each in reservations if each.rung is Rung.CMA and each.mask <= held.mask
    )
    if there >= wanted:
        return None
    return (
        f"{format_size(there)} of CMA lie below the limit, and {format_size(wanted)} are reserved"
        " there"
    )
