# SPDX-License-Identifier: Apache-2.0
"""Memory of a device goes back: by hand, or because nobody wants it any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine.dma.reserve import refuse_leased, release
from zoned.engine.dma.sight import look
from zoned.engine.dma.wanted import What, to_do
from zoned.errors import InPolicy, NoSuchReservation
from zoned.model.dma.device import addresses_of
from zoned.model.dma.held import dma_owner
from zoned.model.job import JobKind, JobRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class DmaRelease:
    """`zonectl dma release`, and what the daemon starts by itself when a device has gone."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. `name` is of a reservation, or the address of the device of one; with
        `unwanted` it goes only if nobody wants it any more.

        Raises NoSuchReservation, InPolicy, ReservationInUse.
        """
        machine, unwanted = self.context.machine, bool(parameters.get("unwanted"))
        name = find_reservation(machine, str(parameters["name"]))
        if not unwanted:
            _refuse_policy(machine, name)
        refuse_leased(machine, name)
        return JobRequest(
            kind=JobKind.DMA_RELEASE,
            what=f"give back memory: {name}",
            zones=(dma_owner(name),),
            parameters={"name": name, "unwanted": unwanted},
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        machine, name = self.context.machine, str(request.parameters["name"])

        def run(control: JobControl) -> None:
            if request.parameters.get("unwanted"):
                held = machine.ledger.touched.reservations
                if to_do(look(machine), held).get(name) is not What.TAKE_DOWN:
                    control.note("it is wanted again, and stays")
                    return
            else:
                control.change(lambda: machine.manual.drop(name))
            release(machine, control, name)

        return run


def find_reservation(machine: Machine, text: str) -> str:
    """Return the name of a reservation, which may also be told by its device, or without it.

    Raises NoSuchReservation.
    """
    held, manual = machine.ledger.touched.reservations, machine.manual.all
    if text in held or text in manual:
        return text
    addresses = addresses_of(text)
    found = {name for name, each in held.items() if addresses & set(each.devices)}
    found |= {name for name, each in manual.items() if each.device in addresses}
    found |= {name for name in (*held, *manual) if name.rpartition("@")[0] == text}
    if len(found) == 1:
        return found.pop()
    known = ", ".join(sorted({*held, *manual})) or "none"
    several = f"{len(found)} reservations are" if found else "no reservation is"
    raise NoSuchReservation(f"{several} called {text!r}", hint=f"reservations: {known}")


def _refuse_policy(machine: Machine, name: str) -> None:
    """Raise InPolicy where the policy would bring it back."""
    if name in machine.manual.all:
        return
    if any(report.name == name for report in look(machine, whole=False)):
        raise InPolicy(
            f"reservation {name} is defined by the policy, which would bring it back",
            hint="change its file in zones.d, then `zonectl reload`",
        )
