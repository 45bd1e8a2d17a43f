# SPDX-License-Identifier: Apache-2.0
"""The fence as it should be: put up, mended and taken down, at each look at the machine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zoned.engine.fence.plan import FenceAction, LiftFence, fence_plan, unfenceable
from zoned.errors import FenceImpossible, Unsupported, ZonedError
from zoned.idset import format_ids
from zoned.kernel.cgroup.fence import usable_nodes
from zoned.model.alert import Alert, AlertCode
from zoned.model.zone import Backing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from zoned.engine.machine import Machine
    from zoned.kernel.cgroup.fence import FenceDriver, Outsider

_log = logging.getLogger(__name__)

_SHOWN = 3
"""How many processes a message names."""


def fenced_nodes(machine: Machine) -> frozenset[int]:
    """Return the nodes that zones have for themselves. What they are lent others use as well."""
    alone = (zone for zone in machine.store.zones.values() if zone.spec.backing is Backing.NODE)
    return frozenset(node for zone in alone for node in zone.taken)


def check_fence(machine: Machine, fenced: frozenset[int]) -> None:
    """Raise FenceImpossible where a fence around these nodes could not stand; change nothing."""
    driver = machine.fence
    if driver is None:
        raise Unsupported("nobody can be kept off a node here")
    outsiders = _strangers(machine, driver)
    host = next((each for each in outsiders if each.holds_daemon), None)
    if fenced and host is not None:
        raise FenceImpossible(
            f"the daemon runs in {host.name}, and would be kept off node {format_ids(fenced)} with"
            " it: it could move no pages there",
            hint="start it as zoned.service, or in a group of its own directly below the root",
        )
    recorded, usable = _recorded(machine), usable_nodes(machine.root)
    stuck = unfenceable(fenced, driver.nodes(), outsiders, recorded, usable)
    if stuck:
        raise FenceImpossible(
            f"{_names(stuck)} would have no node left besides node {format_ids(fenced)}",
            hint="systemctl show -p AllowedMemoryNodes tells a unit's own nodes",
        )


def keep_fence(machine: Machine, fenced: frozenset[int]) -> list[Alert]:
    """Keep everybody outside of the zones off these nodes, and nobody off any other.

    Each group is in the ledger with its former nodes before it is touched. Return what is not as
    it should be, as the machine shows it afterwards.
    """
    recorded = machine.ledger.touched.fence
    if not fenced:
        _keep_own_memory(machine, frozenset())
        if not recorded:
            return []
    if machine.fence is None:
        return [_broken("zones", "nobody can be kept off their nodes here")]
    try:
        return _kept(machine, machine.fence, fenced)
    except ZonedError as error:
        return [_broken("all groups", f"the fence could not be looked at: {error}")]
    finally:
        if fenced or bool(recorded) != bool(machine.ledger.touched.fence):
            machine.fence_changed()


def _keep_own_memory(machine: Machine, nodes: frozenset[int]) -> None:
    """Have the daemon's own memory come from these nodes; empty is from any."""
    if machine.own_memory is not None:
        machine.own_memory.keep_to(nodes)


def _kept(machine: Machine, driver: FenceDriver, fenced: frozenset[int]) -> list[Alert]:
    every, usable = driver.nodes(), usable_nodes(machine.root)
    if fenced:
        _keep_own_memory(machine, every - fenced)
    outsiders = _strangers(machine, driver)
    recorded = _recorded(machine)
    actions = fence_plan(fenced, every, outsiders, recorded, usable)
    alerts = [
        _broken(each.name, f"would have no node left besides node {format_ids(fenced)}")
        for each in unfenceable(fenced, every, outsiders, recorded, usable)
    ]
    for action in actions:
        try:
            _carry_out(machine, driver, action)
        except ZonedError as error:
            alerts.append(_broken(action.group, f"failed to {action.describe()}: {error}"))
    seen = _strangers(machine, driver) if actions else outsiders
    told = {alert.subject for alert in alerts}
    alerts += [alert for alert in _gaps(seen, fenced) if alert.subject not in told]
    return [*alerts, *_loose(driver, fenced)]


def _strangers(machine: Machine, driver: FenceDriver) -> tuple[Outsider, ...]:
    """Return the outsiders, but for units that are attached to zones and have their nodes."""
    attached = machine.ledger.touched.units
    return tuple(each for each in driver.outsiders() if each.name not in attached)


def _recorded(machine: Machine) -> dict[str, frozenset[int]]:
    attached = machine.ledger.touched.units
    return {
        name: former
        for name, former in machine.ledger.touched.fence.items()
        if name not in attached
    }


def _carry_out(machine: Machine, driver: FenceDriver, action: FenceAction | LiftFence) -> None:
    _log.info("%s", action.describe())
    if isinstance(action, LiftFence):
        driver.lift(action.group, action.former)
        machine.ledger.fence_lifted(action.group)
    else:
        machine.ledger.fence_set(action.group, action.former)
        driver.confine(action.group, action.nodes)


def _gaps(outsiders: Collection[Outsider], fenced: frozenset[int]) -> Iterator[Alert]:
    """Yield the groups that may use a fenced node all the same."""
    for each in outsiders:
        open_nodes = (each.effective or frozenset()) & fenced
        if not open_nodes:
            continue
        if each.holds_daemon:
            yield _broken(
                each.name,
                f"may use node {format_ids(open_nodes)}, because the daemon runs in it and would"
                " be kept off with it (start it as zoned.service)",
            )
        else:
            yield _broken(each.name, f"may use node {format_ids(open_nodes)}")


def _loose(driver: FenceDriver, fenced: frozenset[int]) -> Iterator[Alert]:
    if not fenced:
        return
    loose = driver.loose()
    if loose.processes:
        first = ", ".join(f"{each.pid} ({each.name})" for each in loose.processes[:_SHOWN])
        yield Alert(
            code=AlertCode.FENCE_LOOSE,
            subject="root group",
            message=f"{len(loose.processes)} processes may use node {format_ids(fenced)}: {first};"
            f" so may {loose.kernel_threads} threads of the kernel",
        )


def _names(outsiders: Collection[Outsider]) -> str:
    return ", ".join(each.name for each in outsiders)


def _broken(subject: str, message: str) -> Alert:
    return Alert(code=AlertCode.FENCE_BROKEN, subject=subject, message=message)
