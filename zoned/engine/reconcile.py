# SPDX-License-Identifier: Apache-2.0
"""The one loop body that changes the machine: observe, plan, execute, observe again, verify."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.engine.admission import capacities
from zoned.engine.dma.counted import counted_bytes
from zoned.engine.execute import execute
from zoned.engine.fence.keep import fenced_nodes, keep_fence
from zoned.engine.plan import plan
from zoned.engine.verify import (
    verify_capacity,
    verify_groups,
    verify_kernel_memory,
    verify_move,
    verify_zone,
)
from zoned.errors import BelowUse, NotAsWritten, ZonedError
from zoned.kernel.own import own_nodes
from zoned.model.action import (
    Action,
    ChangeGroup,
    CreateGroup,
    PrepareParent,
    ProtectParent,
    RemoveGroup,
    RetireParent,
)
from zoned.model.alert import Alert, AlertCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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

    def __init__(
        self,
        machine: Machine,
        is_busy: Callable[[str], bool] = lambda _: False,
        others: Callable[[], Iterable[Alert]] = tuple,
    ) -> None:
        """Take what tells whether a job works on a zone, and what else is wrong."""
        self._machine = machine
        self._is_busy = is_busy
        self._others = others
        self._failures: dict[str, Failure] = {}
        self._alerts: tuple[Alert, ...] = ()
        self._fence: tuple[Alert, ...] = ()
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
        wanted = self._plan(seen)
        actions = [action for action in wanted if not self._is_hopeless(action, seen)]
        self._keep_failures(action for action in wanted if action not in actions)
        for action in actions:
            if self._failures and self._takes_away(action):
                continue
            if isinstance(action, RetireParent):
                # What the groups have for zones goes with it, and the fence is made of that.
                self._keep_fence()
            if not self._attempt(action):
                break
        self._keep_fence()
        seen = self._machine.observe() if actions else seen
        self._forget_groups(seen)
        self._verify(seen)

    def _keep_fence(self) -> None:
        self._fence = tuple(keep_fence(self._machine, fenced_nodes(self._machine)))

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
        return plan(
            self._machine.store.zones,
            seen.groups,
            made=touched.groups,
            parent_made=touched.parent,
            parent_protection=seen.parent_protection,
            expected=self._machine.groups.expected,
        )

    def _takes_away(self, action: Action) -> bool:
        """Return whether the action takes from the parent what a zone that failed still needs."""
        if isinstance(action, ProtectParent):
            return action.minimum < self._machine.groups.parent_protection()
        return isinstance(action, RetireParent)

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

    def _forget_groups(self, seen: Snapshot) -> None:
        """Drop groups from the ledger that are neither there nor wanted.

        They were not made after all, or were removed just before the daemon was killed.
        """
        ledger = self._machine.ledger
        for name in ledger.touched.groups - set(seen.groups) - set(self._machine.store.zones):
            ledger.group_gone(name)

    def _keep_failures(self, hopeless: Iterable[Action]) -> None:
        """Forget why actions failed that are tried again now, or that nobody wants any more."""
        zones = {subject_of(action) for action in hopeless}
        self._failures = {zone: each for zone, each in self._failures.items() if zone in zones}

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
        for action in self._unexplained(seen):
            self._failures.setdefault(
                subject_of(action),
                Failure(error=NotAsWritten(f"the kernel does not show it: {action.describe()}")),
            )
        before, self._alerts = self._alerts, tuple(self._find_alerts(seen))
        for alert in self._alerts:
            if alert not in before:
                _log.warning("[%s] %s: %s", alert.code, alert.subject, alert.message)
        self._tell_of_kills(seen)

    def _unexplained(self, seen: Snapshot) -> list[Action]:
        """Return what is still to be done, though no failure stands in its way."""
        left = [action for action in self._plan(seen) if not self._is_hopeless(action, seen)]
        if _PARENT in self._failures:
            return []  # Without the parent nothing else was tried.
        if self._failures:
            return [
                action
                for action in left
                if not (isinstance(action, PrepareParent) or self._takes_away(action))
            ]
        return left

    def _tell_of_kills(self, seen: Snapshot) -> None:
        killed = {name: group.events.oom_kill or 0 for name, group in seen.groups.items()}
        for name, count in killed.items():
            if count > self._killed.get(name, count):
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
            yield from verify_move(zone, busy=self._is_busy(zone.name))
        yield from verify_kernel_memory(zones.values(), seen.topology)
        yield from verify_groups(zones.keys(), seen.groups, machine.ledger.touched.groups)
        devices = counted_bytes(machine.ledger.touched.reservations.values())
        yield from verify_capacity(
            capacities(
                seen.topology, machine.policy.reserve, zones.values(), devices=devices
            ).values()
        )
        yield from self._self_confined(seen)
        yield from self._fence
        yield from self._others()

    def _self_confined(self, seen: Snapshot) -> Iterator[Alert]:
        mine = own_nodes(self._machine.root)
        if mine is not None and not seen.topology.memory_nodes <= mine:
            yield Alert(
                code=AlertCode.SELF_CONFINED,
                subject="zoned",
                message=f"may use only nodes {sorted(mine)}",
            )
