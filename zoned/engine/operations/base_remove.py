# SPDX-License-Identifier: Apache-2.0
"""A base zone goes: its blocks go offline, and a device-dax region is for programs again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoned.engine.base.bind import become_device, changing
from zoned.engine.base.movable import forget_gone, forget_left
from zoned.engine.base.offline import Leaving, refuse_without_refuge
from zoned.engine.base.plan import leaving_refused, refuse_fixed
from zoned.engine.base.target import Target, find_target
from zoned.errors import UnknownNode, ZonedError
from zoned.kernel.base_zones import read_base_zones
from zoned.kernel.block_state import BlockSwitch
from zoned.model.base import DaxMode
from zoned.model.job import JobKind, JobRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body, JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRemove:
    """`zonectl base remove`."""

    context: Context

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """See Operation. Raises UsageError, UnknownNode, NoSuchDax, NodeInUse, NotRemovable,
        NoRoom, Unsupported.
        """
        machine = self.context.machine
        target = find_target(machine, parameters["base"])
        what = f"remove base zone {target.name}"
        _refuse(machine, target, what)
        return JobRequest(
            kind=JobKind.BASE_REMOVE, what=what, zones=(target.key,), parameters=dict(parameters)
        )

    def body(self, request: JobRequest) -> Body:
        """See Operation."""
        machine, parameters = self.context.machine, request.parameters

        def run(control: JobControl) -> None:
            try:
                target = find_target(machine, parameters["base"])
            except UnknownNode as error:
                # It was there when the job began: it went before a restart, or was pulled.
                control.change(lambda: forget_gone(machine))
                control.note(error.message)
                return
            work = Leaving(machine, control, target.node, target.blocks)
            with machine.turn.taken(control), BlockSwitch(machine.root) as switch:
                work.run(switch, keep=bool(parameters.get("keep")))
                try:
                    with changing(machine, control, target.dax, DaxMode.DEVDAX):
                        _hand_back(machine, control, target)
                except ZonedError:
                    work.bring_back(switch)
                    raise
                work.settle()
                control.change(lambda: forget_left(machine, target.node))
            if not target.dax:
                control.note(
                    f"the memory of node {target.node} is offline and can be pulled;"
                    f" zonectl base add {target.node} brings it back"
                )

        return run


def _refuse(machine: Machine, target: Target, what: str) -> None:
    """Raise what stands against it beforehand."""
    every = read_base_zones(machine.root)
    zones, held = machine.store.zones.values(), machine.ledger.touched.blocks
    refusal = leaving_refused(target.node, zones, [block.id for block in target.blocks], held)
    if refusal is not None:
        raise refusal
    for zone in every:
        # A region that is only a part of a node can leave whatever else is there.
        if zone.node == target.node and len(zone.blocks) == len(target.blocks):
            refuse_fixed(zone, every)
    refuse_without_refuge(machine, target.node, target.blocks, what)


def _hand_back(machine: Machine, control: JobControl, target: Target) -> None:
    for device in target.dax:
        if device.mode is not DaxMode.DEVDAX:
            control.phase(f"giving {device.name} back to programs")
            become_device(machine, control, device)
