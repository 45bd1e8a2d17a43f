# SPDX-License-Identifier: Apache-2.0
"""The rung `lowmem`: what is free of the kernel's low zone stays free of ordinary allocations.

One setting of the kernel serves all such reservations together. What it was before the first is in
the ledger, and comes back with the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import RungFails, ZonedError
from zoned.kernel.dma_offer import read_offer
from zoned.kernel.kernel_zones import read_kernel_zones, read_ratio
from zoned.kernel.lowmem import write_ratio
from zoned.model.dma.lowmem import demand_of, low_zone, protected, ratios_for
from zoned.model.dma.offer import Offer
from zoned.model.dma.rung import Rung
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.dma.held import Held


class Lowmem:
    """See Holder."""

    def hold(self, machine: Machine, hands: Hands, held: Held) -> Held:
        """Raise the protection of the low zone. Raises RungFails, KernelRefused."""
        hands.phase("raising the protection of low memory")
        offer = read_offer(machine.root, blocks=False)
        if not held.standing:
            _refuse_without_free(offer, held)
        hands.change(lambda: _raise(machine, offer, held))
        name = low_zone(held.mask)
        kept = protected(read_kernel_zones(machine.root) or (), name)
        hands.note(f"the kernel keeps {format_size(kept)} of {name} from ordinary allocations")
        return held

    def faults(self, machine: Machine, held: Held) -> list[str]:
        """See Holder. What is kept falls where somebody else writes the setting, or where higher
        memory of the node went offline.
        """
        offer = read_offer(machine.root, blocks=False)
        name = low_zone(held.mask)
        # Those on their way in are not protected yet, and see to that themselves.
        counted = [each for each in _all(machine) if each.standing or each.name == held.name]
        wanted = _demand(offer, counted).get(name, 0)
        kept = protected(offer.zones or (), name)
        if kept >= wanted:
            return []
        return [
            f"the kernel keeps {format_size(kept)} of {name} from ordinary allocations, and"
            f" {format_size(wanted)} are needed (vm.lowmem_reserve_ratio)"
        ]

    def release(self, machine: Machine, hands: Hands, held: Held) -> None:
        """Lower the protection to what others need, or to what it was."""
        hands.phase("lowering the protection of low memory")
        offer = read_offer(machine.root, blocks=False)
        hands.change(lambda: _protect(machine, offer, without=held.name))


def put_back(machine: Machine) -> None:
    """Put the setting back that the last such reservation could not. Raises KernelRefused,
    NotAsWritten.
    """
    if machine.ledger.touched.ratio is not None and not _all(machine):
        _protect(machine, Offer())


def _refuse_without_free(offer: Offer, held: Held) -> None:
    """Raise RungFails where there is nothing to protect."""
    name = low_zone(held.mask)
    zones = [zone for zone in offer.zones or () if zone.name == name and zone.covered]
    free = sum(max(0, zone.free - offer.beyond(zone, held.mask)) for zone in zones)
    if free < held.size:
        raise RungFails(f"{format_size(free)} of {name} are free below the limit by now")


def _raise(machine: Machine, offer: Offer, held: Held) -> None:
    try:
        _protect(machine, offer)
        name = low_zone(held.mask)
        wanted = _demand(offer, _all(machine))[name]
        kept = protected(read_kernel_zones(machine.root) or (), name)
        if kept < wanted:
            raise RungFails(
                f"the kernel keeps {format_size(kept)} of {name}, and {format_size(wanted)} are"
                " needed"
            )
    except ZonedError:
        if not held.standing:
            _protect(machine, offer, without=held.name)
        raise


def _protect(machine: Machine, offer: Offer, without: str = "") -> None:
    """Have the kernel keep what the ledger's reservations need, or as much of it as can be kept."""
    ledger, now = machine.ledger, read_ratio(machine.root)
    former = ledger.touched.ratio or now
    if now is None or former is None:
        ledger.ratio_was(None)
        return
    others = [each for each in _all(machine) if each.name != without]
    zones, wanted = offer.zones or (), _demand(offer, others)
    ratios = ratios_for(zones, former, wanted)
    if ratios != now or any(protected(zones, name) < size for name, size in wanted.items()):
        ledger.ratio_was(now)
        write_ratio(machine.root, ratios)
    if not wanted:
        ledger.ratio_was(None)


def _all(machine: Machine) -> list[Held]:
    """Return the reservations of this rung, also those on their way in or out."""
    reservations = machine.ledger.touched.reservations.values()
    return [each for each in reservations if each.rung is Rung.LOWMEM]


def _demand(offer: Offer, reservations: Iterable[Held]) -> dict[str, int]:
    return demand_of(offer, [(each.mask, each.size) for each in reservations])
