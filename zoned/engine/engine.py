# SPDX-License-Identifier: Apache-2.0
"""The engine as the daemon sees it: each method is one request, run to its end.

All methods are called by one thread, one after the other. What is only shown is read from
`Machine` beside it: the store's zones are a snapshot, and the kernel answers for itself.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from zoned.engine import members, units, zones
from zoned.engine.base.regions import RegionKeeper
from zoned.engine.base.watch import HotplugKeeper, find_races
from zoned.engine.blocks.keeper import BlockKeeper
from zoned.engine.dma.keeper import DmaKeeper, Jobs
from zoned.engine.operations.context import Context
from zoned.engine.operations.registry import operations, surveyors
from zoned.engine.operations.widen import narrow
from zoned.engine.policy_sync import adopt_policy, adopt_zones, drop_former
from zoned.engine.reconcile import Reconciler
from zoned.errors import PolicyError, TryLater, ZoneBusy, ZonedError
from zoned.model.alert import AlertCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from zoned.engine.jobs.control import Body
    from zoned.engine.jobs.runner import JobRunner
    from zoned.engine.machine import Machine
    from zoned.model.alert import Alert
    from zoned.model.job import Job, JobKind, JobRequest
    from zoned.model.migration import Survey
    from zoned.model.policy import Policy
    from zoned.model.zone import ZoneSpec

_log = logging.getLogger(__name__)


class Engine:
    """One machine's zones."""

    def __init__(self, machine: Machine, load_policy: Callable[[], Policy]) -> None:
        self.machine = machine
        self._load_policy = load_policy
        self._keeper = BlockKeeper(machine, self._start_own)
        self._hotplug = HotplugKeeper(machine, self._start_own)
        self._regions = RegionKeeper(machine, self._start_own, self._is_busy)
        self._dma = DmaKeeper(
            machine,
            Jobs(
                start=lambda *what: self._started(*what).id,
                busy=self._job_of,
                failed=self._failure_of,
            ),
        )
        self._reconciler = Reconciler(machine, self._is_busy, self._other_alerts)
        self._context = Context(machine=machine, reconciler=self._reconciler)
        self._operations = operations(self._context)
        self._surveyors = surveyors(self._context)
        self.jobs: JobRunner | None = None
        """set by the daemon once there is one"""

    def start(self) -> None:
        """Bring policy and stored zones in force. A policy with mistakes becomes an alert."""
        self._forget_dead_members()
        # Before anything else: after a crash memory may be missing.
        self._keeper.settle()
        self._regions.settle()
        try:
            # Jobs of before have to go on first: the next look starts what is left to do.
            self._adopt()
        except PolicyError as error:
            _log.warning("%s", error)
        if self.machine.units is not None:
            units.restore_units(self.machine)

    def tick(self) -> None:
        """Look at the machine again, and mend what differs."""
        self._forget_dead_members()
        self._narrow_leftovers()
        self._drop_former()
        self._hotplug.look()
        self._regions.finish()
        self.dma_look()
        self._reconciler.run()
        if self.jobs is not None and not self._blocks_are_busy():
            self._keeper.settle()
            self._keeper.mend()

    def reload(self) -> None:
        """Read the policy again. Raises PolicyError; what was in force before then goes on."""
        self._adopt()
        self.dma_look()
        self._reconciler.run()

    def _adopt(self) -> None:
        try:
            policy = self._load_policy()
        except PolicyError as error:
            self._reconciler.problems = {"": str(error)}
            self._reconciler.run()
            raise
        self._reconciler.problems = adopt_policy(self.machine, policy, self._is_busy)
        for zone in self.machine.store.zones:
            self._reconciler.forget(zone)
        self._keeper.again()
        self._hotplug.claim()
        self._dma.knows_policy = True
        self._dma.again()
        self._reconciler.run()

    def dma_look(self) -> None:
        """Start jobs for memory of devices that have come or gone, or that the policy wants."""
        self._dma.look()

    def dma_freed(self, reservations: Mapping[str, bool]) -> bool:
        """Take note of buffers that are over; see `DmaKeeper.freed`."""
        return self._dma.freed(reservations)

    def dma_prepare(self, address: str) -> int | None:
        """Return the job that a driver of the device should wait for; None where there is none.

        Raises UnknownDevice.
        """
        return self._dma.prepare(address)

    def dma_check(self) -> list[Alert]:
        """Return what is missing or broken of the memory for devices, by a look at all of it."""
        return self._dma.check()

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Return what was wrong at the last look."""
        return self._reconciler.alerts

    def users_of(self, name: str) -> tuple[str, ...]:
        """Return who besides root may run programs in a zone; nobody where there is none."""
        zone = self.machine.store.zones.get(name)
        return zone.spec.users if zone else ()

    def create(self, spec: ZoneSpec) -> None:
        """Make a zone. One that needs a job for it: see `prepare`."""
        self._refuse_busy(spec.name)
        zones.create(self.machine, self._reconciler, spec)

    def resize(self, name: str, size: int) -> None:
        """Change a zone's size."""
        self._refuse_busy(name)
        zones.resize(self.machine, self._reconciler, name, size)

    def prepare(self, kind: JobKind, parameters: Mapping[str, Any]) -> tuple[JobRequest, Body]:
        """Check what a job is asked to do. Raises ZonedError; nothing was changed then."""
        operation = self._operations[kind]
        request = operation.prepare(parameters)
        for zone in request.zones:
            self._refuse_busy(zone)
        return request, operation.body(request)

    def bodies(self) -> Mapping[JobKind, Callable[[JobRequest], Body]]:
        """Return what takes up jobs that a restart cut short."""
        return {kind: operation.body for kind, operation in self._operations.items()}

    def survey(self, kind: JobKind, parameters: Mapping[str, Any]) -> tuple[str, Survey]:
        """Return what a job would do, and what the pages say to it. Changes nothing."""
        return self._surveyors[kind].survey(parameters)

    def enter(self, name: str, pid: int) -> None:
        """Put the caller itself into a zone, before it becomes the program it wants to run."""
        members.enter(self.machine, name, pid)

    def reset(self) -> list[str]:
        """Destroy every zone, its members put back to where they came from, and bring memory blocks
        and what the kernel does with new ones back to how they were found. Base zones stay; which
        of them were to have movable memory alone is forgotten.

        Return what that did not succeed with, zones, groups and blocks among it, and the reason.
        What the policy wants comes back at the next start or reload.
        """
        left = []
        problems = self._reconciler.problems
        self._reconciler.problems = {name: why for name, why in problems.items() if not name}
        for name in list(self.machine.store.zones):
            try:
                self._refuse_busy(name)
                members.send_home(self.machine, name)
                zones.forget(self.machine, self._reconciler, zones.find_zone(self.machine, name))
            except ZonedError as error:
                left.append(f"{name}: {error}")
        left += self._left_groups() + self._dma.give_all_back() + self._hotplug.give_back()
        left += self._keeper.give_all_back() + self._regions.give_back()
        # Last: what comes back to these nodes has to be movable, or it could not leave.
        self.machine.ledger.movable_only_is(frozenset())
        return left

    def _left_groups(self) -> list[str]:
        """Return the groups that are no zones but have members, as after a step that failed."""
        self._reconciler.run()
        return [
            f"{alert.subject}: {alert.message}"
            for alert in self.alerts
            if alert.code is AlertCode.LEFTOVER and alert.subject not in self.machine.store.zones
        ]

    def _refuse_busy(self, zone: str) -> None:
        if self.jobs is not None:
            self.jobs.refuse_busy(zone)

    def _is_busy(self, zone: str) -> bool:
        try:
            self._refuse_busy(zone)
        except ZoneBusy:
            return True
        return False

    def _start_own(self, kind: JobKind, parameters: Mapping[str, Any]) -> None:
        """Start a job that nobody asked for. Raises TryLater while there is nobody to run it."""
        self._started(kind, parameters)

    def _started(self, kind: JobKind, parameters: Mapping[str, Any]) -> Job:
        if self.jobs is None:
            raise TryLater("jobs cannot be started yet")
        request, body = self.prepare(kind, parameters)
        return self.jobs.start(request, os.getuid(), body)

    def _job_of(self, name: str) -> int | None:
        return None if self.jobs is None else self.jobs.busy_zones.get(name)

    def _failure_of(self, name: str) -> str:
        """Return why the last job that held a name failed; nothing where it did not."""
        jobs = () if self.jobs is None else self.jobs.list()
        last = next((job for job in reversed(jobs) if name in job.request.zones), None)
        error = None if last is None else last.error
        if error is None:
            return ""
        return f"{error.message} ({error.hint})" if error.hint else error.message

    def _blocks_are_busy(self) -> bool:
        """Return whether a job may be in the midst of changing memory blocks."""
        jobs = self.jobs
        return jobs is not None and any(job.request.kind.changes_blocks for job in jobs.active)

    def _other_alerts(self) -> Iterable[Alert]:
        yield from self._dma.alerts()
        if not self._blocks_are_busy():
            yield from self._keeper.alerts()
            yield from find_races(self.machine)

    def _narrow_leftovers(self) -> None:
        """Take back nodes that a job lent to a zone and could not take back itself."""
        for zone in self.machine.store.zones.values():
            if 0 in zone.leaving.values() and not self._is_busy(zone.name):
                narrow(self._context, zone.name)

    def _drop_former(self) -> None:
        """Drop zones that only their members kept, and give their room to those that lack it."""
        lacking = self._reconciler.problems
        # While the files have mistakes nobody knows which zones the policy has.
        if drop_former(self.machine, self._is_busy) and "" not in lacking:
            self._reconciler.problems = adopt_zones(self.machine, lacking)

    def _forget_dead_members(self) -> None:
        recorded = self.machine.ledger.touched.members
        dead = [each for each in recorded if not members.is_alive(self.machine, each)]
        self.machine.ledger.members_ended(dead)
