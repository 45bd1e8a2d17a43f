# SPDX-License-Identifier: Apache-2.0
"""The way from operations to the mover. Here, and only here, what needs numpy is imported: it
takes long, and a daemon that moves nothing does without it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zoned.engine.dma.lessees import fixed_spans, refuse_lessees
from zoned.engine.migration.plan import Move
from zoned.engine.migration.room import refuse_without_room, rooms
from zoned.engine.migration.whole import move_whole
from zoned.errors import Unsupported
from zoned.model.migration import Sharing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.engine.migration.plan import Pace, Scope
    from zoned.kernel.process import Process
    from zoned.model.migration import Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Pages of some processes that are to be on some nodes."""

    what: str
    scope: Scope
    targets: Mapping[int, int]
    """node -> weight; without any weight, by the room there is"""
    pace: Pace
    sources: frozenset[int] | None = None
    sharing: Sharing = Sharing.JOB
    own: tuple[str, ...] = ()
    """the zones that the pages belong to: what is promised to these may be taken"""


def transfer(machine: Machine, control: JobControl, wanted: Transfer) -> None:
    """Move the pages. What is left behind is in the job's account.

    Raises NoRoom and ReservationInUse before a page moves; Cancelled and Suspended in between.
    """
    from zoned.engine.migration.task import move_pages

    if wanted.sharing is Sharing.ALL:
        # The kernel itself is to move what is left.
        _refuse_lessees(machine, wanted)
    move = _move(machine, wanted)
    try:
        move_pages(machine, control, move)
    except Unsupported as error:
        _refuse_lessees(machine, wanted)
        control.note(f"{error.message}: each process is moved by one call of the kernel")
        move_whole(machine, control, move)


def _refuse_lessees(machine: Machine, wanted: Transfer) -> None:
    def processes() -> Iterator[Process]:
        yield from wanted.scope.processes()

    # They are only looked at where anybody has a buffer at all.
    refuse_lessees(machine, processes(), frozenset(wanted.targets), wanted.sources)


def refuse_if_full(machine: Machine, wanted: Transfer) -> None:
    """Raise NoRoom where the pages do not fit on the nodes that they are to be on, ReservationInUse
    where some must not move.
    """
    from zoned.engine.migration.task import survey

    _refuse_lessees(machine, wanted)
    with contextlib.suppress(Unsupported):
        move = _move(machine, wanted)
        found = survey(machine, move)
        if move.check is not None and found.to_move:
            move.check(found.to_move, found.huge)


def look(machine: Machine, wanted: Transfer) -> Survey:
    """Return what `transfer` would do. Raises Unsupported."""
    from zoned.engine.migration.calibrate import calibrate
    from zoned.engine.migration.task import survey

    move = _move(machine, wanted)
    found = survey(machine, move)
    calibrate(machine.costs, move.route.nodes, found.by_node.keys())
    return replace(
        found,
        rooms=rooms(machine, move.route.nodes, wanted.own),
        seconds=machine.costs.seconds(found.to_move, movers=move.pace.movers, rate=move.pace.rate),
    )


def _move(machine: Machine, wanted: Transfer) -> Move:
    from zoned.engine.migration.route import Route

    targets = dict(wanted.targets)
    if len(targets) > 1 and not any(targets.values()):
        targets = {each.node: each.room for each in rooms(machine, targets, wanted.own)}

    def check(size: int, huge: int) -> None:
        refuse_without_room(wanted.what, size, rooms(machine, targets, wanted.own), huge=huge)

    return Move(
        what=wanted.what,
        scope=wanted.scope,
        route=Route(targets=targets, sources=wanted.sources),
        sharing=wanted.sharing,
        pace=wanted.pace,
        check=check,
        fixed=fixed_spans(machine),
    )
