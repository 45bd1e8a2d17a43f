# SPDX-License-Identifier: Apache-2.0
"""zonectl migrate and zonectl move, and the dry run of all that moves memory."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from zoned.api.types import SurveyInfo
from zoned.cli.follow import run_job
from zoned.cli.options import (
    dry_run_option,
    movers_option,
    no_wait_option,
    pace_options,
    require_one,
    what_options,
)
from zoned.cli.output import Format, Row, Table, columns, counted, duration, emit, output_option
from zoned.cli.report import in_order, word
from zoned.cli.talk import Session, call, pass_session
from zoned.errors import UsageError
from zoned.model.migration import Outcome
from zoned.units import format_size

_WHY = {
    Outcome.BUSY: "under I/O or locked at the moment; each is tried again",
    Outcome.ABSENT: "not the kernel's to move, e.g. a device's memory",
    Outcome.SHARED: "mapped by processes that are not to be moved, too",
    Outcome.NO_MEMORY: "the target has no page of that size to give",
    Outcome.PINNED: "held where it is by a device, io_uring or a pipe",
}


@click.command()
@what_options
@click.option("--from", "source", metavar="LIST", help="Only what is on these nodes.")
@click.option("--to", "target", metavar="LIST", required=True, help="To these nodes.")
@click.option("--shared", is_flag=True, help="Also memory that others map.")
@pace_options
@movers_option
@dry_run_option
@no_wait_option
@output_option
@pass_session
def migrate(
    session: Session, output: Format, *, shared: bool, dry_run: bool, no_wait: bool, **given: Any
) -> None:
    """Move the memory of a process, unit or cgroup to other nodes.

    Nothing else changes: it stays in its cgroup, and what it uses next comes from where its own
    policy says. Refused before a page moves where the target has no room.

    \b
    zonectl migrate --pid 4711 --to 2
    zonectl migrate --unit postgresql --from 0 --to 2,3 --rate 500
    """
    require_one(given)
    given["shared"] = shared or None
    if dry_run:
        survey(session, output, "migrate", no_wait=no_wait, **given)
        return
    run_job(
        session,
        "Memory.Migrate",
        output=output,
        no_wait=no_wait,
        doing="looking at what is to be moved",
        **given,
    )


@click.command()
@click.argument("name")
@click.option("--nodes", metavar="LIST", required=True, help="Where the zone is to be.")
@pace_options
@movers_option
@dry_run_option
@no_wait_option
@output_option
@pass_session
def move(
    session: Session, name: str, output: Format, *, dry_run: bool, no_wait: bool, **given: Any
) -> None:
    """Move the zone NAME, with its members' memory, to other nodes.

    The zone may use old and new nodes until its pages have moved, then the new ones alone. Limits
    and protection are in force all the time.

    \b
    zonectl move db --nodes 2,3
    """
    if dry_run:
        survey(session, output, "move", no_wait=no_wait, name=name, **given)
        return
    run_job(
        session,
        "Zones.Move",
        output=output,
        no_wait=no_wait,
        doing=f"looking at zone {name}",
        name=name,
        **given,
    )


def survey(session: Session, output: Format, kind: str, *, no_wait: bool, **given: Any) -> None:
    """Print what a move of this kind (a JobKind) would do.

    Exit status 1 where it would be refused because it does not fit. Raises UsageError where it
    is not to be waited for: nothing is begun that could go on.
    """
    if no_wait:
        raise UsageError("--dry-run starts no job", hint="leave --no-wait out")
    found = call(session, "Memory.Survey", SurveyInfo, doing="looking at pages", kind=kind, **given)
    tables = [_by_node(found), _rooms(found)]
    if any(found.stays.values()):
        tables.append(_stays(found))
    emit(output, dataclasses.asdict(found), *tables, notes=["", *_verdict(found)])
    if not found.fits:
        sys.exit(1)


def _by_node(found: SurveyInfo) -> Table:
    rows: list[Row] = []
    for each in found.by_node:
        sizes = (each.anonymous, each.file, each.thp, each.hugetlb)
        rows.append([each.node, *map(format_size, sizes), format_size(sum(sizes))])
    heads = columns(">NODE", ">ANONYMOUS", ">FILE", ">THP", ">HUGETLB", ">TOTAL")
    return Table(columns=heads, rows=rows)


def _rooms(found: SurveyInfo) -> Table:
    rows: list[Row] = [
        [
            each.node,
            *map(format_size, (each.free, each.reclaimable, each.promised, each.room, each.pool)),
        ]
        for each in found.rooms
    ]
    heads = columns(">TARGET", ">FREE", ">RECLAIMABLE", ">PROMISED", ">ROOM", ">HUGETLB POOL")
    return Table(columns=heads, rows=rows)


def _stays(found: SurveyInfo) -> Table:
    rows: list[Row] = [
        [word(name), format_size(size), _WHY.get(Outcome(name)) if name in set(Outcome) else None]
        for name, size in in_order(found.stays)
    ]
    return Table(columns=columns("STAYS", ">SIZE", "WHY"), rows=rows)


def _verdict(found: SurveyInfo) -> list[str]:
    processes = counted(found.processes, "process", "processes")
    notes = [
        f"{found.what}: {processes}, {format_size(found.to_move)} to move",
        f"of all, {format_size(found.shared)} are mapped more than once and"
        f" {format_size(found.locked)} locked into memory (they move all the same)",
    ]
    if not found.fits:
        room = sum(each.room for each in found.rooms)
        notes.append(f"it would be refused: the target has room for {format_size(room)}")
    elif found.seconds is not None:
        notes.append(f"it should take about {duration(found.seconds)}")
    return notes
