# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma alloc` and `dma leases`: buffers of memory that is reserved for devices."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from zoned.api.types_buffers import LeaseInfo, LeasesInfo, PoolInfo
from zoned.cli.members import become, find_program
from zoned.cli.output import Format, Row, Table, columns, emit, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.errors import UsageError
from zoned.units import format_size

if TYPE_CHECKING:
    from zoned.client import Buffer


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--device", metavar="ADDRESS", help="Of what is reserved for this device.")
@click.option("--reservation", metavar="NAME", help="Of this reservation.")
@click.option("--size", required=True, help="How much; rounded up to whole pages of its kind.")
@click.option("--align", metavar="SIZE", help="What each segment's address is a multiple of.")
@click.option("--segments", metavar="N", type=click.IntRange(1), help="The most segments.")
@click.option("--dmabuf", is_flag=True, help="Make it a dma-buf, too (huge pages only).")
@output_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def alloc(
    session: Session, output: Format, command: tuple[str, ...], *, dmabuf: bool, **asked: Any
) -> None:
    """Have a buffer where a device reaches it, while COMMAND runs, or until standard input ends.

    With COMMAND, zonectl itself becomes the command, which inherits the buffer's descriptor; these
    variables tell of it: ZONED_DMA_FD, ZONED_DMA_SIZE, ZONED_DMA_GRANULE, ZONED_DMA_LEASE,
    ZONED_DMA_SEGMENTS (ADDRESS:SIZE:OFFSET of each, hexadecimal, with commas between them) and
    with --dmabuf ZONED_DMA_DMABUF_FD. Without, the segments are printed.

    \b
    zonectl dma alloc --device 3b:00.0 --size 4MiB -- ./driver
    zonectl dma alloc --reservation capture --size 64MiB --segments 1
    """
    from zoned.client import allocate

    if (asked["device"] is None) == (asked["reservation"] is None):
        raise UsageError("name one of --device and --reservation")
    command = command[1:] if command[:1] == ("--",) else command
    program = find_program(command[0]) if command else ""
    with allocate(**asked, dmabuf=dmabuf, socket=session.socket) as buffer:
        if command:
            become(program, command, _inherited(buffer))
        emit(output, _buffer_data(buffer), _buffer_table(buffer))
        sys.stdout.flush()
        _wait()


@click.command()
@output_option
@pass_session
def leases(session: Session, output: Format) -> None:
    """List the buffers that programs have, and how much of each reservation is free.

    A lease that is "ending" was given back, or its program has ended, but some process still has
    the memory mapped. FRAGMENTED is the share of what is free that lies outside of the longest
    run. Who may not look at zones sees the buffers of its own user.
    """
    found = call(session, "DmaBuffers.Leases", LeasesInfo)
    heads = columns("LEASE", "RESERVATION", ">PID", "USER", ">SIZE", ">SEGMENTS", "STATE")
    table = Table(columns=heads, rows=[_lease_row(each) for each in found.leases])
    pools = columns(
        "RESERVATION", "RUNG", ">SIZE", ">LENT", ">FREE", ">LONGEST", ">RUNS", ">FRAGMENTED"
    )
    below = Table(columns=pools, rows=[_pool_row(each) for each in found.pools])
    emit(output, dataclasses.asdict(found), table, below)


def _inherited(buffer: Buffer) -> dict[str, str]:
    """Have the program that zonectl becomes inherit the buffer; return what tells of it."""
    pieces = (f"{each.address:#x}:{each.size:#x}:{each.offset:#x}" for each in buffer.segments)
    told = {
        "ZONED_DMA_FD": str(buffer.fd),
        "ZONED_DMA_SIZE": str(buffer.size),
        "ZONED_DMA_GRANULE": str(buffer.granule),
        "ZONED_DMA_LEASE": str(buffer.lease),
        "ZONED_DMA_SEGMENTS": ",".join(pieces),
    }
    os.set_inheritable(buffer.fd, True)  # noqa: FBT003
    if buffer.dmabuf_fd is not None:
        os.set_inheritable(buffer.dmabuf_fd, True)  # noqa: FBT003
        told["ZONED_DMA_DMABUF_FD"] = str(buffer.dmabuf_fd)
    return told


def _wait() -> None:
    """Wait until standard input ends, or for Ctrl-C."""
    try:
        while sys.stdin.buffer.read(4096):
            pass
    except KeyboardInterrupt:
        return


def _buffer_data(buffer: Buffer) -> dict[str, object]:
    return {
        "lease": buffer.lease,
        "reservation": buffer.reservation,
        "size": buffer.size,
        "granule": buffer.granule,
        "segments": [dataclasses.asdict(each) for each in buffer.segments],
    }


def _buffer_table(buffer: Buffer) -> Table:
    title = f"lease {buffer.lease}: {format_size(buffer.size)} of {buffer.reservation}"
    rows: list[Row] = [
        [f"{each.address:#x}", format_size(each.size), f"{each.offset:#x}"]
        for each in buffer.segments
    ]
    return Table(columns=columns(">ADDRESS", ">SIZE", ">OFFSET"), rows=rows, title=title)


def _lease_row(lease: LeaseInfo) -> Row:
    state = "ending" if lease.ending else "lent"
    size = format_size(lease.size)
    segments = len(lease.segments)
    return [lease.number, lease.reservation, lease.pid, lease.user, size, segments, state]


def _pool_row(pool: PoolInfo) -> Row:
    sizes = (pool.size, pool.leased, pool.free, pool.largest)
    share = None if pool.fragmentation is None else f"{pool.fragmentation:.0%}"
    return [pool.reservation, pool.rung, *map(format_size, sizes), pool.runs, share]
