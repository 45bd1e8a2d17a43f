# SPDX-License-Identifier: Apache-2.0
"""`zonectl blocks park|unpark|offline|online`: blocks held offline, and who holds which."""

from __future__ import annotations

import click

from zoned.api.types import BlockInfo
from zoned.cli.follow import run_job
from zoned.cli.options import no_wait_option
from zoned.cli.output import Format, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.errors import Denied, NoDaemon
from zoned.units import parse_size

_node_option = click.option("--node", type=click.IntRange(min=0), required=True, help="Of which.")


@click.command()
@_node_option
@click.option("--size", required=True, help="How much; rounded up to whole blocks.")
@click.option("--keep", is_flag=True, help="Keep what was taken, where it is not all.")
@no_wait_option
@output_option
@pass_session
def park(
    session: Session, node: int, size: str, output: Format, *, keep: bool, no_wait: bool
) -> None:
    """Take memory blocks of a node offline and hold them, ready for zones of backing `blocks`.

    What lies in them moves elsewhere first; the memory is in nobody's hands then, and not in
    MemTotal either. The best blocks are taken first. Where there are too few, all go back.

    \b
    zonectl blocks park --node 2 --size 8GiB
    """
    run_job(
        session,
        "Memory.Park",
        output=output,
        no_wait=no_wait,
        doing=f"parking memory of node {node}",
        node=node,
        size=parse_size(size),
        keep=keep or None,
    )


@click.command()
@_node_option
@click.option("--size", help="How much; all that is parked there if left out.")
@no_wait_option
@output_option
@pass_session
def unpark(session: Session, node: int, size: str | None, output: Format, *, no_wait: bool) -> None:
    """Bring parked memory blocks of a node back online, as they were before."""
    run_job(
        session,
        "Memory.Unpark",
        output=output,
        no_wait=no_wait,
        doing=f"bringing memory of node {node} back",
        node=node,
        size=None if size is None else parse_size(size),
    )


@click.command()
@click.argument("blocks", metavar="LIST")
@no_wait_option
@output_option
@pass_session
def offline(session: Session, blocks: str, output: Format, *, no_wait: bool) -> None:
    """Take certain memory blocks offline and hold them, as `park` does with the best ones.

    LIST are numbers as `blocks list` shows them. What lies in the blocks moves elsewhere first; all
    of them go, or none.

    \b
    zonectl blocks offline 12,14-15
    """
    run_job(
        session,
        "Memory.Offline",
        output=output,
        no_wait=no_wait,
        doing=f"taking memory blocks {blocks} offline",
        blocks=blocks,
    )


@click.command()
@click.argument("blocks", metavar="LIST")
@no_wait_option
@output_option
@pass_session
def online(session: Session, blocks: str, output: Format, *, no_wait: bool) -> None:
    """Bring certain parked memory blocks back online, as they were before."""
    run_job(
        session,
        "Memory.Online",
        output=output,
        no_wait=no_wait,
        doing=f"bringing memory blocks {blocks} back",
        blocks=blocks,
    )


def owners(session: Session) -> dict[int, str]:
    """Return which blocks the daemon holds for whom; none where it cannot be asked."""
    try:
        held = call(session, "Memory.Blocks", list[BlockInfo])
    except (NoDaemon, Denied):
        return {}
    return {each.id: each.owner for each in held}
