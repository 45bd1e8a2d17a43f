# SPDX-License-Identifier: Apache-2.0
"""Carrying out one action. The ledger is written before the machine is touched."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, assert_never

from zoned.engine.make_room import make_room, soft_limits_kept
from zoned.errors import TryLater
from zoned.model.action import (
    Action,
    ChangeGroup,
    CreateGroup,
    PrepareParent,
    ProtectParent,
    RemoveGroup,
    RetireParent,
)

if TYPE_CHECKING:
    from zoned.engine.machine import Machine

_log = logging.getLogger(__name__)


def execute(machine: Machine, action: Action) -> None:
    """Do it. Raises what the kernel's side raises; nothing half made is left."""
    _log.info("%s", action.describe())
    match action:
        case PrepareParent():
            machine.ledger.parent(made=True)
            machine.groups.prepare()
        case ProtectParent(minimum=minimum):
            machine.groups.protect_parent(minimum)
        case CreateGroup(zone=zone, limits=limits):
            machine.ledger.group_made(zone)
            machine.groups.create(zone, limits)
        case ChangeGroup():
            _change(machine, action)
        case RemoveGroup(zone=zone):
            machine.groups.remove(zone)
            machine.ledger.group_gone(zone)
        case RetireParent():
            machine.groups.retire()
            machine.ledger.parent(made=False)
        case _:
            assert_never(action)


def _change(machine: Machine, action: ChangeGroup) -> None:
    machine.ledger.group_made(action.zone)
    group = machine.groups.group(action.zone)
    if group is None:
        raise TryLater(f"the group of zone {action.zone} is gone", hint="it is made again")
    with soft_limits_kept(machine.groups, group):
        make_room(machine.groups, group, action.limits)
        machine.groups.change(action.zone, action.limits)
