# SPDX-License-Identifier: Apache-2.0
"""The engine as the daemon sees it: each method is one request, run to its end.

All methods are called by one thread, one after the other. What is only shown is read from
`Machine` beside it: the store's zones are a snapshot, and the kernel answers for itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zoned.engine import members, units, zones
from zoned.engine.policy_sync import adopt_policy
from zoned.engine.reconcile import Reconciler
from zoned.errors import PolicyError, UsageError, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.engine.machine import Machine
    from zoned.engine.units import Moved
    from zoned.model.alert import Alert
    from zoned.model.policy import Policy
    from zoned.model.zone import ZoneSpec

_log = logging.getLogger(__name__)


class Engine:
    """One machine's zones."""

    def __init__(self, machine: Machine, load_policy: Callable[[], Policy]) -> None:
        self.machine = machine
        self._load_policy = load_policy
        self._reconciler = Reconciler(machine)

    def start(self) -> None:
        """Bring policy and stored zones in force. A policy with mistakes becomes an alert."""
        self._forget_dead_members()
        try:
            self.reload()
        except PolicyError as error:
            _log.warning("%s", error)
        if self.machine.units is not None:
            units.restore_units(self.machine)

    def tick(self) -> None:
        """Look at the machine again, and mend what differs."""
        self._forget_dead_members()
        self._reconciler.run()

    def reload(self) -> None:
        """Read the policy again. Raises PolicyError; what was in force before then goes on."""
        try:
            policy = self._load_policy()
        except PolicyError as error:
            self._reconciler.problems = {"": str(error)}
            self._reconciler.run()
            raise
        self._reconciler.problems = adopt_policy(self.machine, policy)
        for zone in self.machine.store.zones:
            self._reconciler.forget(zone)
        self._reconciler.run()

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Return what was wrong at the last look."""
        return self._reconciler.alerts

    def users_of(self, name: str) -> tuple[str, ...]:
        """Return who besides root may run programs in a zone; nobody where there is none."""
        zone = self.machine.store.zones.get(name)
        return zone.spec.users if zone else ()

    def create(self, spec: ZoneSpec) -> None:
        """Make a zone."""
        zones.create(self.machine, self._reconciler, spec)

    def resize(self, name: str, size: int) -> None:
        """Change a zone's size."""
        zones.resize(self.machine, self._reconciler, name, size)

    def destroy(self, name: str, *, drain: str | None, kill: bool) -> None:
        """Destroy a zone, after moving its members out or ending them where that was said."""
        zones.refuse_policy_zone(zones.find_zone(self.machine, name))
        if kill and drain is not None:
            raise UsageError("members are either moved or ended", hint="name one of drain and kill")
        self._destroy(name, drain=drain, kill=kill)

    def attach(self, name: str, *, pid: int | None, unit: str | None, cgroup: str | None) -> Moved:
        """Make a process, a unit or a cgroup a member."""
        _require_one(pid, unit, cgroup)
        if pid is not None:
            return members.attach_process(self.machine, name, pid)
        if unit is not None:
            return units.attach_unit(self.machine, name, unit)
        return members.attach_cgroup(self.machine, name, cgroup or "")

    def detach(self, name: str, *, pid: int | None, unit: str | None, cgroup: str | None) -> Moved:
        """Undo an attach."""
        _require_one(pid, unit, cgroup)
        if pid is not None:
            return members.detach_process(self.machine, name, pid)
        if unit is not None:
            return units.detach_unit(self.machine, name, unit)
        return members.detach_cgroup(self.machine, name, cgroup or "")

    def enter(self, name: str, pid: int) -> None:
        """Put the caller itself into a zone, before it becomes the program it wants to run."""
        members.enter(self.machine, name, pid)

    def reset(self) -> list[str]:
        """Destroy every zone, its members put back to where they came from.

        Return the zones that could not be destroyed, with the reason. Zones of the policy come back
        at the next start or reload.
        """
        left = []
        for name in list(self.machine.store.zones):
            try:
                self._destroy(name, drain="root", kill=False)
            except ZonedError as error:
                left.append(f"{name}: {error}")
        return left

    def _destroy(self, name: str, *, drain: str | None, kill: bool) -> None:
        machine = self.machine
        if kill:
            members.kill(machine, name)
        elif drain is not None:
            members.drain(machine, name, drain)
        zones.forget(machine, self._reconciler, zones.find_zone(machine, name))

    def _forget_dead_members(self) -> None:
        recorded = self.machine.ledger.touched.members
        dead = [each for each in recorded if not members.is_alive(self.machine, each)]
        self.machine.ledger.members_ended(dead)


def _require_one(pid: int | None, unit: str | None, cgroup: str | None) -> None:
    if [pid, unit, cgroup].count(None) != 2:
        raise UsageError("name one of --pid, --unit and --cgroup")
