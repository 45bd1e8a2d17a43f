# SPDX-License-Identifier: Apache-2.0
"""Pages in buffers that programs have: whether they still lie where the device was told.

This process keeps no file that it lent, or its pages would never come back. So each look borrows it
from a process that has it open or mapped. Device-dax memory does not move.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from zoned.engine.dma.leases import pages_of
from zoned.engine.dma.sources import FILE
from zoned.errors import MachineError
from zoned.kernel.file_pages import addresses_in_use
from zoned.kernel.open_files import links_to, open_behind
from zoned.kernel.process import all_pids
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zoned.engine.machine import Machine
    from zoned.kernel.root import Root
    from zoned.model.dma.held import Lease

_log = logging.getLogger(__name__)


def moved_pages(machine: Machine) -> dict[int, str]:
    """Return lease -> what moved, for the buffers of huge pages of which some page has.

    Nothing is told of a buffer that no process is seen to have: its descriptor may be in a socket.
    """
    leases, pages = _lent(machine)
    try:
        links = _links(machine.root, leases)
    except MachineError as error:
        _log.warning("cannot look for buffers: [%s] %s", error.code, error)
        return {}
    found = {}
    for number, lease in leases.items():
        link = links.get(lease.inode or 0)
        told = link and _moved(machine.root, lease, link, pages[number])
        if told:
            found[number] = told
    return found


def _lent(machine: Machine) -> tuple[dict[int, Lease], dict[int, int]]:
    """Return the buffers whose files are known, and the size of their pages."""
    touched, leases, pages = machine.ledger.touched, {}, {}
    for number, lease in touched.leases.items():
        held = touched.reservations.get(lease.reservation)
        if held is not None and held.rung is Rung.HUGETLB and held.page and lease.inode:
            leases[number], pages[number] = lease, held.page
    return leases, pages


def _links(root: Root, leases: Mapping[int, Lease]) -> dict[int, Path]:
    """Return inode -> a link to the file: with its program, else with whoever has it from there."""
    inodes = {lease.inode for lease in leases.values() if lease.inode is not None}
    found = links_to(root, FILE, inodes, {lease.pid for lease in leases.values()})
    missing = inodes - found.keys()
    return {**found, **links_to(root, FILE, missing, all_pids(root))} if missing else found


def _moved(root: Root, lease: Lease, link: Path, page: int) -> str:
    """Return what moved; nothing where nothing did, or it cannot be seen."""
    try:
        now = _addresses(root, lease, link, page)
    except MachineError as error:
        _log.warning("cannot look at lease %d: [%s] %s", lease.number, error.code, error)
        return ""
    told = pages_of(lease.segments, page)
    moved = [(was, at) for was, at in zip(told, now, strict=False) if at and at != was]
    if not moved:
        return ""
    was, at = moved[0]
    return (
        f"{len(moved)} of {len(told)} pages of a buffer of reservation {lease.reservation} have"
        f" moved, one from {was:#x} to {at:#x}; process {lease.pid} was told the former addresses"
    )


def _addresses(root: Root, lease: Lease, link: Path, page: int) -> tuple[int, ...]:
    file = open_behind(root, link, lease.inode or 0)
    if file is None:
        return ()
    try:
        if os.fstat(file).st_size != lease.size:
            return ()
        return addresses_in_use(root, file, page, lease.size)
    finally:
        os.close(file)
