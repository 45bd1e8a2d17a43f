# SPDX-License-Identifier: Apache-2.0
"""zonectl list: apart from the other commands about zones, which need much more to be loaded."""

from __future__ import annotations

import dataclasses

import click

from zoned.api.zone_info import ZoneInfo
from zoned.cli.output import Format, Row, Table, columns, emit, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.idset import format_ids
from zoned.units import format_size


@click.command("list")
@output_option
@pass_session
def list_zones(session: Session, output: Format) -> None:
    """List all zones.

    USED is what is charged to the zone; FOREIGN is what its members use and what is charged
    elsewhere, because the kernel never moves a charge with a process. STATE is active, degraded
    (an alert), failed (not as wanted) or missing; `zonectl show NAME` tells why.
    """
    zones = call(session, "Zones.List", list[ZoneInfo])
    heads = columns("NAME", "STATE", ">SIZE", ">USED", ">FOREIGN", "NODES", "BACKING", ">MEMBERS")
    rows: list[Row] = [
        [
            zone.name,
            zone.state,
            format_size(zone.size),
            format_size(zone.used),
            format_size(zone.foreign),
            format_ids(zone.nodes),
            zone.backing,
            zone.members,
        ]
        for zone in zones
    ]
    notes = [] if zones else ["no zones yet: zonectl create NAME --size 1GiB"]
    emit(
        output,
        [dataclasses.asdict(zone) for zone in zones],
        Table(columns=heads, rows=rows),
        notes=notes,
    )
