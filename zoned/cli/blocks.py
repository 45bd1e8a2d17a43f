# SPDX-License-Identifier: Apache-2.0
"""`zonectl blocks`: memory blocks, which can go, and why not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from zoned.cli.block_tables import blocks_data, blocks_table, outlooks_data, outlooks_table
from zoned.cli.output import Format, emit, output_option
from zoned.cli.parking import offline, online, park, unpark
from zoned.cli.parking import owners as held_by
from zoned.cli.talk import Session, pass_session, sign_of_life
from zoned.cli.topology import sysroot_option
from zoned.kernel.memory_block import block_size, read_blocks
from zoned.model.block import zone_owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.kernel.root import Root
    from zoned.model.block import Outlook

_NO_HOTPLUG = "this kernel or machine has no memory hotplug, so there are no memory blocks"
_NOT_ROOT = "only root can see what lies in memory blocks"
_ENDED = "(a group that ended)"


@click.group
def blocks() -> None:
    """Look at memory blocks, the pieces in which memory comes and goes, and hold some offline."""


blocks.add_command(park)
blocks.add_command(unpark)
blocks.add_command(offline)
blocks.add_command(online)


@blocks.command("list")
@click.option(
    "--why", is_flag=True, help="Tell whether each block can go offline, and what keeps it."
)
@output_option
@sysroot_option
@pass_session
def list_blocks(session: Session, output: Format, root: Root, *, why: bool) -> None:
    """List the memory blocks of this machine.

    ZONES is the kernel's zone of an online block, or the zones that an offline one can come back
    to; "none" is a block that can never go offline. OWNER is "base" for memory that no zone
    holds, where the daemon can be asked. The table shows neighbours that are alike as one line;
    JSON has one entry per block.

    With --why, CAN GO tells whether the kernel could move all that lies in the block elsewhere,
    INSIDE whose memory lies in it, zone by zone, and WHY what keeps it. It is a prediction from
    what the pages are at this moment, and only root sees that; what a device or a pipe holds on to
    is not seen. In JSON "pages" are bytes.
    """
    found = read_blocks(root)
    owners = held_by(session) if root.live else {}
    notes = [] if found or block_size(root) is not None else [_NO_HOTPLUG]
    if not why:
        emit(output, blocks_data(found, owners), blocks_table(found, owners), notes=notes)
        return
    # The plain list does without.
    from zoned.kernel.block_outlook import outlooks

    with sign_of_life("looking at the pages"):
        seen = list(outlooks(root, found))
    if root.live and os.geteuid() != 0:
        notes.append(_NOT_ROOT)
    inside = _inside(root, seen)
    tables = outlooks_table(seen, owners, inside)
    emit(output, outlooks_data(seen, owners, inside), tables, notes=notes)


def _inside(root: Root, seen: Sequence[Outlook]) -> dict[int, dict[str, int]]:
    """Return block -> owner, or path of a cgroup that is no zone's -> bytes."""
    from zoned.kernel.cgroup.inodes import cgroup_paths, zone_of_path

    paths = cgroup_paths(root)
    inside: dict[int, dict[str, int]] = {}
    for each in seen:
        sizes = inside.setdefault(each.block.id, {})
        for inode, size in (each.pages.owners if each.pages else {}).items():
            path = paths.get(inode, _ENDED)
            zone = zone_of_path(path)
            owner = zone_owner(zone) if zone else path
            sizes[owner] = sizes.get(owner, 0) + size
    return inside
