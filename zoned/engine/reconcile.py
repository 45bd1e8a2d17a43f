# SPDX-License-Identifier: Apache-2.0
"""The one loop body that changes the machine: observe, plan, execute, observe again, verify."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.engine.admission import capacities
from zoned.engine.execute import execute
from zoned.engine.plan import plan
from zoned.engine.verify import verify_capacity, verify_groups, verify_zone
from zoned.errors import BelowUse, NotAsWritten, ZonedError
from zoned.kernel.own import own_nodes
from zoned.model.action import Action, ChangeGroup, CreateGroup, RemoveGroup
from zoned.model.alert import Alert, AlertCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned.engine.machine import Machine, Snapshot
    from zoned.model.zone import Limits

_log = logging.getLogger(__name__)

_PARENT = ""
"""The subject of failures that concern all zones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an action did not succeed."""

    error: ZonedError
    limits: Limits | None = None


def subject_of(action: Action) -> str:
    """Return the zone that an action is about, "" for all of them."""
    if isinstance(action, CreateGroup | ChangeGroup | RemoveGroup):
        return action.zone
    return _PARENT


class Reconciler:
    """Brings the machine to what is wanted, and knows what is wrong with it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._failures: dict[str, Failure] = {}
        self._alerts: tuple[Alert, ...] = ()
        self._killed: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        """Zones of the policy that could not be placed, with the reason."""

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Return what was wrong at the last run."""
        return self._alerts

    def run(self) -> None:
        """Do what has to be done. Failures become alerts, and are kept for `converge`."""
        seen = self._machine.observe()
        actions = self._plan(seen)
        self._forget_failures(actions)
        for action in actions:
            if not self._attempt(action):
                break
        self._verify(self._machine.observe() if actions else seen)

    def converge(self, zone: str) -> None:
        """Run, and raise what stands between this zone and what is wanted of it."""
        self.forget(zone)
        self.run()
        failure = self._failures.get(zone) or self._failures.get(_PARENT)
        if failure is not None:
            raise failure.error

    def forget(self, zone: str) -> None:
        """Drop a failure, so that what failed is tried again."""
        self._failures.pop(zone, None)

    def _plan(self, seen: Snapshot) -> list[Action]:
        touched = self._machine.ledger.touched
        actions = plan(
            self._machine.store.zones,
            seen.groups,
            made=touched.groups,
            parent_made=touched.parent,
            parent_protection=seen.parent_protection,
            expected=self._machine.groups.expected,
        )
        return [action for action in actions if not self._is_hopeless(action, seen)]

    def _is_hopeless(self, action: Action, seen: Snapshot) -> bool:
        # Reclaim disturbs a zone's members, so a limit that could not be reached is not tried
        # again until it is another one, or the use has gone down by itself.
        if not isinstance(action, ChangeGroup):
            return False
        failure = self._failures.get(action.zone)
        if failure is None or not isinstance(failure.error, BelowUse):
            return False
        used = seen.groups[action.zone].used or 0
        return failure.limits == action.limits and used > (action.limits.max or 0)

    def _forget_failures(self, actions: list[Action]) -> None:
        tried = {subject_of(action) for action in actions} | {_PARENT}
        kept = self._failures.items()
        hopeless = {zone: each for zone, each in kept if isinstance(each.error, BelowUse)}
        self._failures = {
            zone: each
            for zone, each in hopeless.items()
            if zone not in tried and zone in self._machine.store.zones
        }

    def _attempt(self, action: Action) -> bool:
        """Return False where the actions that follow make no sense any more."""
        try:
            execute(self._machine, action)
        except ZonedError as error:
            limits = action.limits if isinstance(action, ChangeGroup) else None
            self._failures[subject_of(action)] = Failure(error=error, limits=limits)
            _log.warning("%s: failed: [%s] %s", action.describe(), error.code, error)
            return subject_of(action) != _PARENT
        return True

    def _verify(self, seen: Snapshot) -> None:
        for action in self._plan(seen):
            subject = subject_of(action)
            if subject not in self._failures:
                self._failures[subject] = Failure(
                    error=NotAsWritten(f"the kernel does not show it: {action.describe()}")
                )
        before, self._alerts = self._alerts, tuple(self._find_alerts(seen))
        for alert in self._alerts:
            if alert not in before:
                _log.warning("[%s] %s: %s", alert.code, alert.subject, alert.message)
        self._tell_of_kills(seen)

    def _tell_of_kills(self, seen: Snapshot) -> None:
        killed = {name: group.events.oom_kill or 0 for name, group in seen.groups.items()}
        for name, count in killed.items():
            if count > self._killed.get(name, 0):
                _log.warning("zone %s: the kernel killed %d processes at its limit", name, count)
        self._killed = killed

    def _find_alerts(self, seen: Snapshot) -> Iterator[Alert]:
        machine = self._machine
        zones = machine.store.zones
        for subject, failure in sorted(self._failures.items()):
            code = AlertCode.NOT_APPLIED
            if isinstance(failure.error, NotAsWritten):
                code = AlertCode.LIMITS_DIFFER
            yield Alert(code=code, subject=subject or "all zones", message=str(failure.error))
        for subject, why in sorted(self.problems.items()):
            code = AlertCode.NOT_APPLIED if subject else AlertCode.BAD_POLICY
            yield Alert(code=code, subject=subject or "policy", message=why)
        for zone in zones.values():
            group = seen.groups.get(zone.name)
            yield from verify_zone(zone, group, protects=machine.groups.protects)
        yield from verify_groups(zones.keys(), seen.groups, machine.ledger.touched.groups)
        yield from verify_capacity(
            capacities(seen.topology, machine.policy.reserve, zones.values()).values()
        )
        yield from self._self_confined(seen)

    def _self_confined(self, seen: Snapshot) -> Iterator[Alert]:
        mine = own_nodes(self._machine.root)
        if mine is not None and not seen.topology.memory_nodes <= mine:
            yield Alert(
                code=AlertCode.SELF_CONFINED,
                subject="zoned",
                message=f"may use only nodes {sorted(mine)}",
            )
