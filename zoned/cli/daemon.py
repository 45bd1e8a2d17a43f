# SPDX-License-Identifier: Apache-2.0
"""The daemon as a whole: status, reload, reset, and what codes mean."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from types import NoneType

import click

from zoned.api.types import StatusInfo
from zoned.cli.output import Format, Row, Table, columns, counted, emit, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.errors import Partial, UsageError, by_code
from zoned.model.alert import AlertCode
from zoned.units import format_size


@click.command()
@output_option
@pass_session
def status(session: Session, output: Format) -> None:
    """Tell at one look whether all is well.

    What each node can still give to zones, and everything that is not as it should be. Exit
    status 1 where there is any alert.
    """
    found = call(session, "Status", StatusInfo)
    nodes: list[Row] = [
        [
            each.node,
            format_size(each.total),
            format_size(each.free),
            format_size(each.system),
            format_size(each.reserved),
            format_size(each.available),
        ]
        for each in found.nodes
    ]
    tables = [
        Table(
            columns=columns(">NODE", ">TOTAL", ">FREE", ">SYSTEM", ">RESERVED", ">FOR ZONES"),
            rows=nodes,
        )
    ]
    if found.alerts:
        rows = [[alert.code, alert.subject, alert.message] for alert in found.alerts]
        tables.append(Table(columns=columns("ALERT", "ABOUT", "MESSAGE"), rows=rows))
    emit(output, dataclasses.asdict(found), *tables, notes=["", _verdict(found)])
    if not found.ok:
        sys.exit(1)


def _verdict(found: StatusInfo) -> str:
    protection = "" if found.protects else ", without hard protection"
    facts = (
        f"zoned {found.version}: {counted(found.zones, 'zone')},"
        f" {counted(found.members, 'member')},{_reservations(found)}"
        f" cgroups by {found.cgroups} at {found.group}{protection}"
    )
    if found.ok:
        return f"{facts}; all is well"
    return f"{facts}; {counted(len(found.alerts), 'alert')} (zonectl explain CODE tells more)"


def _reservations(found: StatusInfo) -> str:
    return f" {counted(found.reservations, 'reservation')}," if found.reservations else ""


@click.command()
@pass_session
def reload(session: Session) -> None:
    """Read the policy files again and bring them in force.

    A mistake in any of them leaves everything as it was. A zone that they no longer name stays
    until its last member leaves, which is said. Exit status 64 where a zone could not be placed,
    made or changed on this machine.
    """
    call(session, "Policy.Reload", NoneType, doing="reloading the policy")
    click.echo("the policy is in force")
    alerts = call(session, "Status", StatusInfo).alerts

    def told(code: AlertCode) -> list[str]:
        return [f"{each.subject}: {each.message}" for each in alerts if each.code == code.value]

    for each in told(AlertCode.LEFTOVER):
        click.echo(each)
    if left := told(AlertCode.NOT_APPLIED):
        raise Partial("\n".join(["these zones are not as wanted:", *left]))


@click.command()
@pass_session
def reset(session: Session) -> None:
    """Destroy every zone and put the machine back as it was found.

    Members go back to the cgroups they came from, and memory for devices to everybody. What the
    policy wants comes back when the daemon is started or reloaded.
    """
    left = call(session, "Reset", list[str], doing="destroying all zones")
    if left:
        raise Partial("\n".join(["this is left:", *left]))
    click.echo("no zone is left")


@click.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Explain the CODE of an error or alert; without one, list all codes."""
    texts = {name: inspect.cleandoc(cls.__doc__ or "") for name, cls in by_code().items()}
    texts |= {alert.value: alert.explain() for alert in AlertCode}
    if code is None:
        rows = [[name, text.split(". ")[0].splitlines()[0]] for name, text in sorted(texts.items())]
        emit(Format.TABLE, [], Table(columns=columns("CODE", "MEANING"), rows=rows))
    elif code in texts:
        click.echo(texts[code])
    else:
        raise UsageError(f"there is no code {code!r}", hint="zonectl explain lists them")
