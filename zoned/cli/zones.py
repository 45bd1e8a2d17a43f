# SPDX-License-Identifier: Apache-2.0
"""Zones: show, create, resize, destroy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from zoned.api.types import JobInfo, ZoneDetail, ZoneRequest
from zoned.cli.follow import Interrupts, conclude, follow, run_job
from zoned.cli.options import no_wait_option, pace_options
from zoned.cli.output import Format, Row, Table, columns, emit, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.idset import format_ids
from zoned.model.zone import Backing
from zoned.units import format_size, parse_size

if TYPE_CHECKING:
    from zoned.api.types import LimitsInfo, PressureInfo


@click.command()
@click.argument("name")
@output_option
@pass_session
def show(session: Session, name: str, output: Format) -> None:
    """Show all about the zone NAME: limits as the kernel shows them, usage by node, pressure,
    events, members and alerts.
    """
    _emit_zone(call(session, "Zones.Show", ZoneDetail, name=name), output)


@click.command()
@click.argument("name")
@click.option("--size", required=True, help="How much memory, e.g. 2GiB.")
@click.option("--nodes", help="On which nodes: 0  0,2  0-3,6  all  !1.")
@click.option(
    "--near",
    help="On the nodes nearest to cpu:N, node:N, pci:ADDRESS, netdev:NAME, block:NAME, zone:NAME.",
)
@click.option(
    "--backing",
    type=click.Choice([backing.value for backing in Backing]),
    default="reserve",
    show_default=True,
    help="How firmly the memory is set aside, see zoned-zones(7).",
)
@click.option(
    "--cpus",
    default="local",
    show_default=True,
    help="local (the CPUs of its nodes), none (any CPU), or a list.",
)
@click.option("--exclusive-cpus", is_flag=True, help="Nobody else runs on these CPUs.")
@click.option(
    "--swap",
    default="none",
    show_default=True,
    help="What may be swapped out: none, SIZE, max.",
)
@click.option("--user", "users", multiple=True, help="Who besides root may `zonectl run` here.")
@no_wait_option
@output_option
@pass_session
def create(
    session: Session, name: str, size: str, output: Format, *, no_wait: bool, **options: Any
) -> None:
    """Create the zone NAME.

    Without --nodes and --near, the node with the most room takes it. A zone of backing `reserve`
    is refused where its nodes cannot promise its size; `blocks` takes whole memory blocks, so that
    all of its size is free at the beginning; `node` has its nodes for itself. These two are jobs:
    they move what others have there.

    \b
    zonectl create db --size 64GiB --nodes 2
    zonectl create net --size 4GiB --near netdev:eth0 --user dpdk
    zonectl create hpc --size 256GiB --nodes 3 --backing node
    """
    users = list(options.pop("users")) or None
    wanted = {"name": name, "size": parse_size(size), "users": users, **options}
    if Backing(options["backing"]).is_slow:
        request = ZoneRequest(**wanted)
        _follow(session, "Zones.StartCreate", output, no_wait=no_wait, zone=request)
        if no_wait:
            return
        detail = call(session, "Zones.Show", ZoneDetail, name=name)
    else:
        doing = f"creating zone {name}"
        detail = call(session, "Zones.Create", ZoneDetail, doing=doing, **wanted)
    _done(detail, output, "created")


def _follow(
    session: Session, method: str, output: Format, *, no_wait: bool, **parameters: Any
) -> None:
    """Run a job whose result is the zone itself: with -o json that alone is printed."""
    if output is Format.TABLE or no_wait:
        run_job(
            session,
            method,
            output=output,
            no_wait=no_wait,
            doing="asking for it",
            **parameters,
        )
    else:
        with Interrupts() as interrupts:
            job = call(session, method, JobInfo, **parameters)
            # YAML shows nothing on the way, and with JSON nothing is added at the end.
            last = follow(session, job, Format.YAML, interrupts)
        conclude(last, Format.JSON, interrupted=interrupts.count > 0)


@click.command()
@click.argument("name")
@click.argument("size")
@no_wait_option
@output_option
@pass_session
def resize(session: Session, name: str, size: str, output: Format, *, no_wait: bool) -> None:
    """Change the zone NAME to SIZE.

    Shrinking makes room first; where the kernel cannot, the old limit stands and nothing is ended.
    A zone of backing `blocks` takes memory blocks or gives them back, as a job.
    """
    wanted = {"name": name, "size": parse_size(size)}
    detail = call(session, "Zones.Show", ZoneDetail, name=name)
    if Backing(detail.backing).is_slow:
        _follow(session, "Zones.StartResize", output, no_wait=no_wait, **wanted)
        if no_wait:
            return
        detail = call(session, "Zones.Show", ZoneDetail, name=name)
    else:
        doing = f"resizing zone {name}"
        detail = call(session, "Zones.Resize", ZoneDetail, doing=doing, **wanted)
    _done(detail, output, "resized")


@click.command()
@click.argument("name")
@click.option("--drain", metavar="ZONE|root", help="Move members there first.")
@click.option("--kill", is_flag=True, help="End all members first (SIGKILL).")
@pace_options
@no_wait_option
@output_option
@pass_session
def destroy(
    session: Session, name: str, output: Format, *, kill: bool, no_wait: bool, **given: Any
) -> None:
    """Destroy the zone NAME.

    A zone with members is not destroyed unless you say what becomes of them: `--drain root` puts
    them back to where they came from, `--drain ZONE` into another zone, `--kill` ends them.
    """
    run_job(
        session,
        "Zones.Destroy",
        output=output,
        no_wait=no_wait,
        doing=f"destroying zone {name}",
        name=name,
        kill=kill or None,
        **given,
    )


def _done(detail: ZoneDetail, output: Format, what: str) -> None:
    if output is Format.TABLE:
        nodes = format_ids(detail.nodes)
        size = format_size(detail.size)
        click.echo(f"zone {detail.name} is {what}: {size} on node {nodes}, {detail.backing}")
        for alert in detail.alerts:
            click.echo(f"note: [{alert.code}] {alert.message}")
    else:
        _emit_zone(detail, output)


def _emit_zone(detail: ZoneDetail, output: Format) -> None:
    tables = [_facts(detail), _limits(detail.wanted, detail.limits), _usage(detail)]
    if detail.processes:
        tables.append(_processes(detail))
    if detail.alerts:
        rows = [[alert.code, alert.message] for alert in detail.alerts]
        tables.append(Table(columns=columns("ALERT", "MESSAGE"), rows=rows))
    emit(output, dataclasses.asdict(detail), *tables)


def _facts(detail: ZoneDetail) -> Table:
    rows: list[Row] = [
        ("state", detail.state),
        ("backing", detail.backing),
        ("size", format_size(detail.size)),
        ("used", format_size(detail.used)),
        ("peak", format_size(detail.peak)),
        ("foreign", format_size(detail.foreign)),
        ("swapped", format_size(detail.swap_used)),
        ("blocks", format_ids(detail.blocks) or "none"),
        ("members", detail.members),
        ("units", ", ".join(detail.units) or "none"),
        ("users", ", ".join(detail.users) or "root only"),
        ("made by", detail.origin),
        ("cgroup", detail.cgroup),
        ("pressure", _pressure(detail.pressure)),
        (
            "events",
            f"oom {_count(detail.events.oom)}, killed {_count(detail.events.oom_kill)},"
            f" max {_count(detail.events.max)}, high {_count(detail.events.high)}",
        ),
    ]
    return Table(columns=columns("ZONE", detail.name), rows=rows)


def _pressure(pressure: PressureInfo | None) -> str | None:
    if pressure is None:
        return None
    return f"some {pressure.some_10s}% full {pressure.full_10s}% (last 10 s)"


def _limits(wanted: LimitsInfo, found: LimitsInfo | None) -> Table:
    def cells(limits: LimitsInfo | None) -> list[str | None]:
        if limits is None:
            return [None] * 5
        return [
            "unlimited" if limits.max is None else format_size(limits.max),
            format_size(limits.min),
            "unlimited" if limits.swap is None else format_size(limits.swap),
            limits.nodes,
            limits.cpus or "any",
        ]

    names = ("max", "min", "swap", "nodes", "CPUs")
    pairs = zip(names, cells(wanted), cells(found), strict=True)
    return Table(columns=columns("LIMIT", ">WANTED", ">IN FORCE"), rows=list(pairs))


def _usage(detail: ZoneDetail) -> Table:
    rows: list[Row] = [
        [usage.node, format_size(usage.share), format_size(usage.used)] for usage in detail.by_node
    ]
    return Table(columns=columns(">NODE", ">SHARE", ">USED"), rows=rows)


def _processes(detail: ZoneDetail) -> Table:
    rows: list[Row] = [
        [member.pid, member.name, format_size(member.anonymous)] for member in detail.processes
    ]
    return Table(columns=columns(">PID", "PROGRAM", ">ANONYMOUS"), rows=rows)


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
