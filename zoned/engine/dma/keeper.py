# SPDX-License-Identifier: Apache-2.0
"""Looks after memory for devices: devices come and go, the policy changes, the daemon was killed.

Nothing is set up or taken down here: what is to be done becomes a job, one for each reservation.
What did not succeed is tried again after a while.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoned.engine.blocks.hands import Direct
from zoned.engine.dma.holders import HOLDERS
from zoned.engine.dma.lent import moved_pages
from zoned.engine.dma.lowmem import put_back
from zoned.engine.dma.reserve import boot_hint, release
from zoned.engine.dma.sight import find_device, look
from zoned.engine.dma.wanted import What, to_do, unmet, wanted
from zoned.errors import TryLater, ZonedError
from zoned.kernel.dma_offer import read_low_blocks
from zoned.model.alert import Alert, AlertCode
from zoned.model.dma.allot import DmaState, Verdict
from zoned.model.dma.held import dma_owner
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import DmaPolicy
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from zoned.engine.dma.wanted import Wanted
    from zoned.engine.machine import Machine
    from zoned.model.block import Outlook
    from zoned.model.dma.allot import Report
    from zoned.model.dma.held import Held
    from zoned.model.dma.ladder import Need

_log = logging.getLogger(__name__)

AGAIN = 600.0
"""Seconds after which what did not succeed is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What the keeper needs of those who run jobs."""

    start: Callable[[JobKind, Mapping[str, Any]], int]
    """start one; return its number"""
    busy: Callable[[str], int | None]
    """return the number of the job that holds a name"""
    failed: Callable[[str], str]
    """return why the last job that held a name failed; nothing where it did not"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """Something that was begun about a reservation."""

    what: What
    for_whom: tuple[Need, tuple[str, ...]] | None
    """what was wanted, and for which devices"""
    when: float

    def is_like(self, other: _Tried) -> bool:
        """Return whether the other one is the same, at another time."""
        return (self.what, self.for_whom) == (other.what, other.for_whom)


class DmaKeeper:
    """Brings reservations to what is wanted. For the thread that changes the machine."""

    def __init__(
        self, machine: Machine, jobs: Jobs, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take what runs jobs."""
        self._machine = machine
        self._jobs = jobs
        self._clock = clock
        self.knows_policy = False
        """whether the policy was read since the start; before, nothing of it is taken down"""
        self._tried: dict[str, _Tried] = {}
        """the last that was begun about each reservation"""
        self._reports: tuple[Report, ...] = ()
        self._faults: dict[str, list[str]] = {}
        self._moved: dict[int, str] = {}
        """buffers whose memory has moved: nothing can put them right"""

    def look(self) -> None:
        """Look at the devices; start a job for each reservation that something is to be done about
        and no job works on.
        """
        try:
            self._look()
        except ZonedError as error:
            _log.warning("memory for devices: [%s] %s", error.code, error)

    def again(self) -> None:
        """Have the next look try everything: the policy has changed."""
        self._tried.clear()

    def freed(self, reservations: Mapping[str, bool]) -> bool:
        """Take note that buffers of these are over; True: that lost memory. Return whether a look
        is called for: what was refused because of them is tried again.
        """
        before = len(self._tried)
        self._tried = {name: each for name, each in self._tried.items() if name not in reservations}
        return len(self._tried) < before or any(reservations.values())

    def prepare(self, address: str) -> int | None:
        """Look, and return the number of the job that a device has to wait for; None for none.

        Raises UnknownDevice.
        """
        address = find_device(self._machine, address).address
        number = self._job_for(address)
        if number is None:  # else the event of the device was faster
            self.look()
            number = self._job_for(address)
        return number

    def give_all_back(self) -> list[str]:
        """Give everything back, what was asked for by hand too; return what could not be, with the
        reason.
        """
        machine = self._machine
        # What only the policy wants comes back with the next reload.
        dma = DmaPolicy(quirks=machine.policy.dma.quirks)
        machine.policy = replace(machine.policy, dma=dma)
        for name in machine.manual.all:
            machine.manual.drop(name)
        self._reports, self._faults, self._moved, left = (), {}, {}, []
        for name in list(self._held):
            try:
                release(machine, Direct(), name)
            except ZonedError as error:
                left.append(f"reservation {name}: {error}")
        try:
            put_back(machine)
        except ZonedError as error:
            left.append(f"low memory: {error}")
        return left

    def alerts(self) -> Iterator[Alert]:
        """Yield what was missing or broken at the last look."""
        for report in unmet(self._reports, self._held):
            if not report.name and report.device is not None:
                yield Alert(
                    code=AlertCode.RESERVATION_MISSING,
                    subject=f"device {report.device.address}",
                    message=_why(report, ""),
                )
            elif not self._is_busy(report.name):
                message = _why(report, self._jobs.failed(dma_owner(report.name)))
                yield Alert(
                    code=AlertCode.RESERVATION_MISSING,
                    subject=f"reservation {report.name}",
                    message=message,
                )
        for name, faults in self._faults.items():
            if name in self._held and not self._is_busy(name):
                yield Alert(
                    code=AlertCode.RESERVATION_BROKEN,
                    subject=f"reservation {name}",
                    message="; ".join(faults),
                )
        for number, told in self._moved.items():
            if number in self._machine.ledger.touched.leases:
                yield Alert(code=AlertCode.BUFFER_MOVED, subject=f"lease {number}", message=told)

    def check(self) -> list[Alert]:
        """Look at everything, start nothing, and return what is missing or broken now.

        Raises MachineError where the machine cannot be read.
        """
        self._reports = look(self._machine)
        self._find_faults()
        self._moved = moved_pages(self._machine)
        return list(self.alerts())

    @property
    def _held(self) -> Mapping[str, Held]:
        return self._machine.ledger.touched.reservations

    def _job_for(self, address: str) -> int | None:
        """Return the job that works on what the last look found to be for a device."""
        owners = [
            dma_owner(report.name)
            for report in self._reports
            if report.device is not None and report.device.address == address
        ]
        return next((number for each in owners if (number := self._jobs.busy(each))), None)

    def _look(self) -> None:
        put_back(self._machine)
        # Jobs that begin later than this look for themselves.
        self._machine.low_blocks.clear()
        reports, seen = look(self._machine, whole=False), None
        if not all(map(_is_told_without_pages, self._undone(reports))):
            # What can be had instead: that takes a look at the pages of memory blocks.
            devices = [each.device for each in reports if each.device is not None]
            seen = read_low_blocks(self._machine.root)
            reports = look(self._machine, devices=devices, low_blocks=seen)
        self._reports = reports
        self._find_faults()
        found = self._to_do(self._reports)
        found |= {name: What.REPAIR for name in self._faults if name not in found}
        self._tried = {
            name: each for name, each in self._tried.items() if name in found or self._is_busy(name)
        }
        should = wanted(self._reports)
        for name, what in found.items():
            if not self._is_busy(name):
                self._try(name, what, should.get(name), seen)
        # Last, as nothing waits for it.
        self._moved = moved_pages(self._machine)

    def _undone(self, reports: Iterable[Report]) -> Iterator[Report]:
        """Yield those of whom something is missing that no job works on: each block that a job
        takes calls for a look, and the job would have to wait for it.
        """
        reports = list(reports)
        names = {*self._to_do(reports), *(each.name for each in unmet(reports, self._held))}
        return (each for each in reports if each.name in names and not self._is_busy(each.name))

    def _is_busy(self, name: str) -> bool:
        return self._jobs.busy(dma_owner(name)) is not None

    def _to_do(self, reports: Iterable[Report]) -> dict[str, What]:
        found, held = to_do(reports, self._held), self._held
        if self.knows_policy:
            return found
        return {
            name: what
            for name, what in found.items()
            if what is not What.TAKE_DOWN or not held[name].standing
        }

    def _find_faults(self) -> None:
        self._faults = {}
        for name, each in self._held.items():
            if each.standing and not self._is_busy(name):
                faults = HOLDERS[each.rung].faults(self._machine, each)
                if faults:
                    self._faults[name] = faults

    def _try(
        self,
        name: str,
        what: What,
        should: Wanted | None,
        seen: tuple[Outlook, ...] | None,
    ) -> None:
        for_whom = None if should is None else (should.need, should.devices)
        trial = _Tried(what=what, for_whom=for_whom, when=self._clock())
        last = self._tried.get(name)
        if last is not None and last.is_like(trial) and trial.when - last.when < AGAIN:
            return
        self._tried[name] = trial
        if seen is not None:
            self._machine.low_blocks[name] = seen
        try:
            if what is What.TAKE_DOWN:
                self._jobs.start(JobKind.DMA_RELEASE, {"name": name, "unwanted": True})
            else:
                self._jobs.start(JobKind.DMA_RESERVE, {"name": name})
        except TryLater:
            del self._tried[name]
        except ZonedError as error:
            _log.warning("reservation %s: [%s] %s", name, error.code, error)


def _is_told_without_pages(report: Report) -> bool:
    """Return whether a look at the pages of memory blocks would find the same."""
    verdict, rungs = report.verdict, list(Rung)
    if verdict is None or verdict.state in {DmaState.SATISFIED, DmaState.REFUSED}:
        return True
    return verdict.rung is not None and rungs.index(verdict.rung) < rungs.index(Rung.BLOCKS)


def _why(report: Report, failed: str) -> str:
    verdict = report.verdict or Verdict(state=DmaState.UNSURE)
    hint = verdict.hint or boot_hint(verdict.step)
    code = f"[{verdict.code}] " if verdict.code else ""
    told = f"{code}{verdict.why}" + (f" ({hint})" if hint else "")
    return failed or told
