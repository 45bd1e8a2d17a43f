# SPDX-License-Identifier: Apache-2.0
"""`zonectl base`: memory that comes and goes."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import click

from zoned.api.types import BaseListInfo
from zoned.cli.follow import run_job
from zoned.cli.options import no_wait_option
from zoned.cli.output import Format, Row, Table, columns, emit, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.cli.topology import sysroot_option
from zoned.errors import Denied, NoDaemon
from zoned.idset import format_ids
from zoned.units import format_size

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_YES_NO = {True: "yes", False: "no", None: None}


@click.group
def base() -> None:
    """Bring memory online that was plugged in, and take it offline so that it can leave."""


@base.command("list")
@output_option
@sysroot_option
@pass_session
def list_base(session: Session, output: Format, root: Root) -> None:
    """List the base zones of this machine, and the device-dax regions that could become some.

    SOURCE is where the memory is from; only what was plugged in can leave again. Then how many
    memory blocks there are, for the kernel's own use, movable, and offline. No daemon and no root
    needed; without root the kernel does not tell where memory is from, without the daemon nobody
    knows which zones are there.
    """
    found = _found(session, root)
    tables = [_nodes(found)]
    if found.dax:
        tables.append(_regions(found))
    emit(output, dataclasses.asdict(found), *tables, notes=_notes(found))


@base.command()
@click.argument("base", metavar="NODE|DAX")
@click.option(
    "--movable-only",
    is_flag=True,
    help="No memory for the kernel, so that all of it can always leave again.",
)
@no_wait_option
@output_option
@pass_session
def add(session: Session, base: str, output: Format, *, movable_only: bool, no_wait: bool) -> None:
    """Bring the memory of a node online, or make a device-dax region memory.

    One block in four, and at least the first, becomes memory that the kernel can use for itself;
    the rest is movable, so that it can leave again. Memory that was plugged in and that somebody
    else brought online for the kernel is made movable as far as it goes.

    Memory that was in use by the kernel does not always leave. With --movable-only there is none
    of it, until the base zone is removed. No program can run on such memory alone, so zones use it
    together with another node: --nodes 3,4.

    \b
    zonectl base add 4
    zonectl base add 4 --movable-only
    zonectl base add dax0.0
    """
    run_job(
        session,
        "Memory.BaseAdd",
        output=output,
        no_wait=no_wait,
        doing=f"looking at base zone {base}",
        base=base,
        movable_only=movable_only or None,
    )


@base.command()
@click.argument("base", metavar="NODE|DAX")
@click.option("--keep", is_flag=True, help="Where not all blocks go offline, leave those that did.")
@no_wait_option
@output_option
@pass_session
def remove(session: Session, base: str, output: Format, *, keep: bool, no_wait: bool) -> None:
    """Take the memory of a node offline, so that it can be pulled; a device-dax region goes back.

    Refused while zones are there: move or destroy them first. Where a block cannot go offline, all
    come back as they were.

    \b
    zonectl base remove 4
    zonectl base remove dax0.0
    """
    run_job(
        session,
        "Memory.BaseRemove",
        output=output,
        no_wait=no_wait,
        doing=f"looking at base zone {base}",
        base=base,
        keep=keep or None,
    )


def _found(session: Session, root: Root) -> BaseListInfo:
    """Ask the daemon, which knows more; without one look at the machine from here."""
    if root.live:
        with contextlib.suppress(NoDaemon, Denied):
            return call(session, "Memory.BaseList", BaseListInfo)
    from zoned.api.base import base_list
    from zoned.kernel.auto_online import read_auto_online
    from zoned.kernel.base_zones import read_base_zones
    from zoned.kernel.dax import read_dax
    from zoned.kernel.memory_block import block_size

    return base_list(
        read_base_zones(root),
        read_dax(root),
        block_size=block_size(root),
        auto_online=read_auto_online(root),
        users=None,
        movable_only=None,
    )


def _nodes(found: BaseListInfo) -> Table:
    rows: list[Row] = [
        [
            each.node,
            each.source if each.source != "unknown" else None,
            format_size(each.total),
            each.blocks,
            each.kernel,
            each.movable,
            each.offline,
            _YES_NO[each.removable],
            None if each.zones is None else ", ".join(each.zones) or "none",
        ]
        for each in found.nodes
    ]
    heads = (">NODE", "SOURCE", ">TOTAL", ">BLOCKS", ">KERNEL", ">MOVABLE", ">OFFLINE", "REMOVABLE")
    return Table(columns=columns(*heads, "ZONES"), rows=rows)


def _regions(found: BaseListInfo) -> Table:
    rows: list[Row] = [
        [each.name, format_size(each.size), each.node, each.mode] for each in found.dax
    ]
    return Table(columns=columns("REGION", ">SIZE", ">NODE", "MODE"), rows=rows)


def _notes(found: BaseListInfo) -> list[str]:
    notes = []
    for nodes in sorted({tuple(each.part_of) for each in found.nodes if each.part_of}):
        notes.append(f"nodes {format_ids(nodes)} are parts of one physical node (numa=fake)")
    movable_only = [each.node for each in found.nodes if each.movable_only]
    if movable_only:
        notes.append(
            f"for movable memory alone: node {format_ids(movable_only)}"
            " (zones use it together with a node that has other memory)"
        )
    if found.auto_online is not None:
        notes.append(f"new memory blocks are by themselves: {found.auto_online}")
    return ["", *notes] if notes else []
