# SPDX-License-Identifier: Apache-2.0
"""Setting memory aside for a device: rung by rung until one holds; and giving it back.

Each step is in the ledger before it is made. What stands there as not standing is taken down by
whoever finds it: a job that goes on after a crash, or the keeper.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.dma.holders import HOLDERS
from zoned.errors import NoRung, PendingReboot, ReservationInUse, RungFails, ZonedError
from zoned.model.dma.boot_line import to_do
from zoned.model.dma.held import Held
from zoned.model.dma.rung import Rung
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.dma.wanted import Wanted
    from zoned.engine.machine import Machine
    from zoned.model.dma.ladder import Step

_log = logging.getLogger(__name__)


def reserve(machine: Machine, hands: Hands, wanted: Wanted) -> Held:
    """Make a reservation stand: climb the ladder, or repair the one that stands already.

    Raises PendingReboot where only another boot helps, NoRung where nothing does;
    ReservationInUse where another one has to go first, and programs use it.
    """
    found = machine.ledger.touched.reservations.get(wanted.name)
    if found is not None and wanted.is_met_by(found):
        return _repair(machine, hands, replace(found, devices=wanted.devices))
    if found is not None:
        release(machine, hands, found.name)
    return _climb(machine, hands, wanted)


def release(machine: Machine, hands: Hands, name: str) -> None:
    """Give the memory of a reservation back; one that is not there is fine.

    Raises ReservationInUse where programs have buffers of it, what its holder raises. It is in the
    ledger then as before.
    """
    held = machine.ledger.touched.reservations.get(name)
    if held is None:
        return
    falling = replace(held, standing=False)

    def fall() -> None:
        # In one piece: of one that does not stand nobody gets a buffer.
        refuse_leased(machine, name)
        machine.ledger.reserved(falling)

    hands.change(fall)
    HOLDERS[held.rung].release(machine, hands, falling)
    hands.change(lambda: machine.ledger.unreserved(name))
    _log.info("reservation %s: %s of %s given back", name, format_size(held.size), held.rung)


def refuse_leased(machine: Machine, name: str) -> None:
    """Raise ReservationInUse where programs have buffers of a reservation."""
    leases = [each for each in machine.ledger.touched.leases.values() if each.reservation == name]
    if leases:
        pids = ", ".join(str(each.pid) for each in leases[:5]) + (" …" if len(leases) > 5 else "")
        raise ReservationInUse(
            f"programs have {len(leases)} buffers of reservation {name} (pid {pids})",
            hint="end them first",
        )


def boot_hint(step: Step | None) -> str:
    """Return what to do for a rung that holds at the next boot only; nothing for others."""
    return "" if step is None or step.span is None else to_do(step.span, booted=step.booted)


def _climb(machine: Machine, hands: Hands, wanted: Wanted) -> Held:
    failed: dict[Rung, str] = {}
    for step in wanted.verdict.steps:
        if step.rung is Rung.PENDING_REBOOT or step.holds is False or step.rung not in HOLDERS:
            continue
        hands.checkpoint()
        hands.phase(f"trying {step.rung}")
        try:
            return _set_up(machine, hands, _planned(wanted, step))
        except ZonedError as error:
            if wanted.name in machine.ledger.touched.reservations:
                raise  # Something of it is left, and on record: no other rung may hide that.
            hands.note(f"{step.rung}: {error.message}")
            failed[step.rung] = error.message
    last = next((s for s in wanted.verdict.steps if s.rung is Rung.PENDING_REBOOT), None)
    if last is not None and last.holds:
        what = (
            "has memory that is no region yet" if last.booted else "is possible only after a reboot"
        )
        raise PendingReboot(f"reservation {wanted.name} {what}", hint=boot_hint(last))
    raise NoRung(f"reservation {wanted.name}: {_why_none(wanted, failed)}")


def _why_none(wanted: Wanted, failed: Mapping[Rung, str]) -> str:
    """Return what became of each rung that might have been tried."""
    told = [
        f"{step.rung}: {failed.get(step.rung, step.why)}"
        for step in wanted.verdict.steps
        if step.rung in wanted.need.rungs
    ]
    return "; ".join(told) or wanted.verdict.why


def _planned(wanted: Wanted, step: Step) -> Held:
    return Held(
        name=wanted.name,
        rung=step.rung,
        size=wanted.need.size,
        mask=wanted.need.mask,
        devices=wanted.devices,
        node=wanted.need.node,
        region=step.key if step.rung is Rung.DEVDAX else None,
    )


def _set_up(machine: Machine, hands: Hands, planned: Held) -> Held:
    """Try one rung, and look whether it really holds. Raises ZonedError; nothing is left then."""
    ledger, holder = machine.ledger, HOLDERS[planned.rung]
    hands.change(lambda: ledger.reserved(planned))
    try:
        held = holder.hold(machine, hands, planned)
    except ZonedError:
        hands.change(lambda: ledger.unreserved(planned.name))
        raise
    hands.change(lambda: ledger.reserved(held))
    faults = holder.faults(machine, held)
    if faults:
        release(machine, hands, held.name)
        raise RungFails(f"it does not show: {'; '.join(faults)}")
    return _stands(machine, hands, held)


def _repair(machine: Machine, hands: Hands, held: Held) -> Held:
    hands.phase(f"looking after {held.rung}")
    hands.change(lambda: machine.ledger.reserved(held))
    return _stands(machine, hands, HOLDERS[held.rung].hold(machine, hands, held))


def _stands(machine: Machine, hands: Hands, held: Held) -> Held:
    found = replace(held, standing=True)
    hands.change(lambda: machine.ledger.reserved(found))
    rung = found.rung
    hands.note(f"{format_size(found.size)} on {rung}. {rung.promises} Not: {rung.cannot_promise}")
    _log.info("reservation %s: %s on %s", found.name, format_size(found.size), rung)
    return found
