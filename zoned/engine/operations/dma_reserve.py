# SPDX-License-Identifier: Apache-2.0
"""Memory for a device: by hand, or because the policy wants it and the device is there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zoned.engine.blocks.hands import Direct
from zoned.engine.dma.manual import Manual, manual_from_json, manual_to_json
from zoned.engine.dma.reserve import release, reserve
from zoned.engine.dma.sight import find_device, look, look_for
from zoned.engine.jobs.control import Cancelled
from zoned.errors import AlreadyReserved, PendingReboot, ZonedError, revive
from zoned.model.dma.allot import DmaState
from zoned.model.dma.held import dma_owner
from zoned.model.job import JobKind, JobRequest
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.operations.context import Context
    from zoned.model.dma.allot import Report, Verdict

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DmaReserve:
    """`zonectl dma reserve`, and what the daemon starts by itself for the policy."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Either `name` is of a reservation that is wanted, or `manual` is a Manual
        that is to be.

        Raises UnknownDevice, AlreadyReserved, LimitUnknown, LimitTooLow, TooLittleBelow,
        DmaContradiction.
        """
        asked = parameters.get("manual")
        if asked is None:
            name = str(parameters["name"])
            return _request(name, f"reserve memory: {name}", {"name": name})
        manual = _checked(self.context, asked)
        what = f"reserve {format_size(manual.size)} for device {manual.device}"
        return _request(manual.reservation, what, {"manual": manual_to_json(manual)})

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        if "manual" not in request.parameters:
            name = str(request.parameters["name"])
            return lambda control: _bring_about(self.context, control, name)
        manual = manual_from_json(request.parameters["manual"])
        return lambda control: _by_hand(self.context, control, manual)


class _Tidying(Direct):
    """Hands of a job that ends: what is left to do is done, whatever was asked of the job."""

    def __init__(self, control: JobControl) -> None:
        self._control = control

    def change(self, work: Callable[[], T]) -> T:
        """See JobControl."""
        return self._control.change(work)


def _request(name: str, what: str, parameters: Mapping[str, Any]) -> JobRequest:
    owner = dma_owner(name)
    return JobRequest(
        kind=JobKind.DMA_RESERVE, what=what, zones=(owner,), parameters=dict(parameters)
    )


def _checked(context: Context, asked: Manual) -> Manual:
    """Return what was asked for with the device's whole address. Raises what `prepare` does."""
    machine = context.machine
    device = find_device(machine, asked.device).address
    manual = Manual(
        name=asked.name, device=device, size=asked.size, limit=asked.limit, rungs=asked.rungs
    )
    there = [
        report.name
        for report in look(machine, whole=False)
        if report.device is not None and report.device.address == device and report.wish is not None
    ]
    if there:
        raise AlreadyReserved(
            f"reservation {there[0]} is for {device} already",
            hint="one made by hand goes with `zonectl dma release`",
        )
    _refuse(_verdict(look(machine, more=manual), manual.reservation))
    return manual


def _verdict(reports: Iterable[Report], name: str) -> Verdict | None:
    return next((report.verdict for report in reports if report.name == name), None)


def _refuse(verdict: Verdict | None) -> None:
    """Raise what the ladder refuses whatever the rung."""
    if verdict is not None and verdict.state is DmaState.REFUSED:
        raise revive(verdict.code, verdict.why, verdict.hint)


def _by_hand(context: Context, control: JobControl, manual: Manual) -> None:
    machine, name = context.machine, manual.reservation
    control.change(lambda: machine.manual.put(manual))
    try:
        _bring_about(context, control, name)
        # It may have been pulled meanwhile.
        find_device(machine, manual.device)
    except PendingReboot:
        raise
    except (ZonedError, Cancelled):
        control.change(lambda: machine.manual.drop(name))
        _tidy(context, control, name)
        raise


def _bring_about(context: Context, control: JobControl, name: str) -> None:
    """Have a reservation stand, or tell why nothing is needed."""
    machine = context.machine
    wanted = look_for(machine, name)
    if wanted is None:
        _tell_why_not(context, control, name)
        return
    try:
        reserve(machine, control, wanted)
    except Cancelled:
        found = machine.ledger.touched.reservations.get(name)
        if found is not None and not found.standing:
            _tidy(context, control, name)
        raise


def _tell_why_not(context: Context, control: JobControl, name: str) -> None:
    verdict = _verdict(look(context.machine), name)
    _refuse(verdict)
    why = f"nothing is reserved: {verdict.why}" if verdict else "nobody wants it any more"
    control.note(why)


def _tidy(context: Context, control: JobControl, name: str) -> None:
    """Give back what was begun, or what nobody wants after all."""
    try:
        release(context.machine, _Tidying(control), name)
    except ZonedError as error:
        # It is on record, and taken down with the next look at the machine.
        _log.warning("reservation %s: [%s] %s", name, error.code, error)
