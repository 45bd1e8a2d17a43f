# SPDX-License-Identifier: Apache-2.0
"""The rung `devdax`: a part of a device-dax region, between those of other reservations.

Nothing of the machine is changed: the memory was set aside at boot, and the ledger tells whose it
is. Who may map the region is decided where buffers are handed out.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.errors import RungFails, ZonedError
from zoned.kernel.dax import find_dax
from zoned.model.base import DaxMode
from zoned.model.dma.limit import mask_text
from zoned.model.dma.offer import Span, without
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.base import DaxDevice
    from zoned.model.dma.held import Held

ALIGNED = 2 << 20
"""What mappings of a region are aligned to where the kernel does not say."""


class Devdax:
    """See Holder."""

    def hold(self, machine: Machine, hands: Hands, held: Held) -> Held:
        """Choose a part of the region. Raises NoSuchDax, RungFails."""
        if held.spans:
            faults = self.faults(machine, held)
            if faults:
                raise RungFails("; ".join(faults))
            return held

        def choose() -> Held:
            # In one piece: between choosing and writing down nobody else may choose.
            found = replace(held, spans=_chosen(machine, held))
            machine.ledger.reserved(found)
            return found

        return hands.change(choose)

    def faults(self, machine: Machine, held: Held) -> list[str]:
        """See Holder."""
        try:
            device = find_dax(machine.root, held.region or "")
        except ZonedError as error:
            return [error.message]
        if device.mode is not DaxMode.DEVDAX:
            return [f"{device.name} is used as {device.mode} by now"]
        there = [Span(*each) for each in device.ranges]
        found = []
        if without(held.spans, there):
            found.append(f"{device.name} does not lie any more where its memory was reserved")
        found += [
            f"{span.start:#x} to {span.end - 1:#x} lies beyond {mask_text(held.mask)}"
            for span in held.spans
            if span.end - 1 > held.mask
        ]
        return found

    def release(self, machine: Machine, hands: Hands, held: Held) -> None:
        """See Holder. Nothing was changed."""


def _chosen(machine: Machine, held: Held) -> tuple[Span, ...]:
    """Return what of the region is to be the reservation's: one piece if there is such a one, the
    tightest, else as few as possible.
    """
    device = find_dax(machine.root, held.region or "")
    if device.mode is not DaxMode.DEVDAX:
        raise RungFails(f"{device.name} is used as {device.mode} by now")
    align = device.align or ALIGNED
    free = list(_free(machine, device, held, align))
    wanted = -(-held.size // align) * align
    whole = [span for span in free if span.size >= wanted]
    if whole:
        best = min(whole, key=lambda span: (span.size, span.start))
        return (Span(best.start, wanted),)
    return _pieces(device, free, wanted)


def _pieces(device: DaxDevice, free: Sequence[Span], wanted: int) -> tuple[Span, ...]:
    room = sum(span.size for span in free)
    if room < wanted:
        raise RungFails(f"{format_size(room)} of {device.name} are free below the limit by now")
    found = []
    for span in sorted(free, key=lambda span: -span.size):
        piece = min(span.size, wanted)
        found.append(Span(span.start, piece))
        wanted -= piece
    return tuple(sorted(span for span in found if span.size))


def _free(machine: Machine, device: DaxDevice, held: Held, align: int) -> Iterator[Span]:
    """Yield what of the region lies below the limit and is nobody's, in whole aligned pieces.

    Only these can be mapped. They count from where a range begins, which the kernel has aligned.
    """
    reservations = machine.ledger.touched.reservations.values()
    theirs = itertools.chain.from_iterable(
        each.spans for each in reservations if each.region == device.name and each.name != held.name
    )
    holes = list(theirs)
    for start, size in device.ranges:
        below = Span(start, Span(start, size).below(held.mask))
        for span in without([below], holes):
            first = start + -(-(span.start - start) // align) * align
            last = start + (span.end - start) // align * align
            if last > first:
                yield Span(first, last - first)
