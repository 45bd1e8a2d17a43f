# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma reserve`, `release` and `check`."""

from __future__ import annotations

import dataclasses
import sys

import click

from zoned.api.types import AlertInfo
from zoned.cli.follow import run_job
from zoned.cli.options import no_wait_option
from zoned.cli.output import Format, Table, columns, counted, emit, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.model.dma.rung import Rung
from zoned.units import parse_size


@click.command()
@click.option("--device", metavar="DEVICE", required=True, help="PCI address, or platform device.")
@click.option("--size", required=True, help="How much, e.g. 256MiB.")
@click.option("--limit", metavar="BITS|ADDRESS", help="Below this, e.g. 31 or 0x7fffffff.")
@click.option("--name", help="What to call it, with the device's address behind it.")
@click.option(
    "--rung",
    "rungs",
    multiple=True,
    type=click.Choice([str(rung) for rung in Rung]),
    help="Try this way, and such as are named besides; else all.",
)
@no_wait_option
@output_option
@pass_session
def reserve(
    session: Session,
    device: str,
    size: str,
    limit: str | None,
    name: str | None,
    rungs: tuple[str, ...],
    output: Format,
    *,
    no_wait: bool,
) -> None:
    """Reserve memory that a device can reach, until it is released.

    The ways of the ladder are tried in order, see zoned-zones(7); what the one that holds promises,
    and what not, is told. While the device is away its memory is free; when it is back, also after
    a reboot, it is reserved again. Where only other words on the kernel's command line help, these
    are told, the status is 64, and it is reserved after that boot.

    \b
    zonectl dma reserve --device 3b:00.0 --size 256MiB
    zonectl dma reserve --device 3b:00.0 --size 256MiB --limit 31 --rung devdax --rung hugetlb
    """
    run_job(
        session,
        "Dma.Reserve",
        output=output,
        no_wait=no_wait,
        doing=f"looking at device {device}",
        device=device,
        size=parse_size(size),
        limit=limit,
        name=name,
        rungs=list(rungs) or None,
    )


@click.command()
@click.argument("name", metavar="NAME|DEVICE")
@no_wait_option
@output_option
@pass_session
def release(session: Session, name: str, output: Format, *, no_wait: bool) -> None:
    """Give memory back that was reserved by hand.

    What the policy wants stays: change its file. Refused while programs have buffers of it.
    """
    run_job(
        session,
        "Dma.Release",
        output=output,
        no_wait=no_wait,
        doing=f"looking at reservation {name}",
        name=name,
    )


@click.command()
@output_option
@pass_session
def check(session: Session, output: Format) -> None:
    """Look whether all memory for devices is there, and as it should be: settings, addresses.

    Exit status 1 where something is missing or broken.
    """
    found = call(session, "Dma.Check", list[AlertInfo], doing="looking at memory for devices")
    tables = []
    if found:
        rows = [[each.code, each.subject, each.message] for each in found]
        tables.append(Table(columns=columns("ALERT", "ABOUT", "MESSAGE"), rows=rows))
    verdict = counted(len(found), "alert") if found else "all memory for devices is as it should be"
    notes = ["", verdict] if found else [verdict]
    emit(output, [dataclasses.asdict(each) for each in found], *tables, notes=notes)
    if found:
        sys.exit(1)
