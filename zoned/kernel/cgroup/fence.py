# SPDX-License-Identifier: Apache-2.0
"""Keeping everybody outside of the zones off some nodes: what the engine asks, whoever does it.

A group's children can never use more nodes than the group itself, and one whose own nodes are all
taken away uses what its parent may (cgroup-v2.rst, "cpuset.mems.effective"). So the groups directly
below the root are enough on cgroup v2. The root group itself cannot be confined, and with it the
threads of the kernel that are in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zoned.errors import KernelThread, NoSuchProcess
from zoned.kernel.cgroup.location import locations
from zoned.kernel.cgroup.tree import own_pids, pids_in
from zoned.kernel.process import children as children_of
from zoned.kernel.process import find
from zoned.kernel.root import read_ids

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.process import Process
    from zoned.kernel.root import Root


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsider:
    """A group outside of the zones that can be kept off nodes."""

    name: str
    """its unit, or its path below the cgroup mount, with leading slash"""
    own: frozenset[int] = frozenset()
    """the nodes that it is confined to by its own setting; empty where it has none"""
    written: frozenset[int] | None = None
    """what stands in its cpuset.mems; None where the group has no such file"""
    effective: frozenset[int] | None = None
    """the nodes that it may use in the end; None is unknown"""
    holds_daemon: bool = False
    """whether this process is in it, with others: to confine it would confine the daemon"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loose:
    """Who is in the root group, which cannot be confined. The daemon itself does not count."""

    processes: tuple[Process, ...] = ()
    kernel_threads: int = 0


class FenceDriver(Protocol):
    """The groups beside the zones. Every method raises KernelRefused or ServiceManager where the
    machine refuses; what is gone meanwhile is fine.
    """

    def nodes(self) -> frozenset[int]:
        """Return all nodes that a group can be given, those included that may appear later."""

    def outsiders(self) -> tuple[Outsider, ...]:
        """Return the groups that are to stay off the nodes of zones.

        Not the group above all zones, and not one that holds this process alone.
        """

    def confine(self, name: str, nodes: frozenset[int]) -> None:
        """Let a group use these nodes alone, now and after each restart of its unit.

        The kernel moves the mapped pages that it has elsewhere.
        """

    def lift(self, name: str, former: frozenset[int]) -> None:
        """Let a group use what it could before `confine`; empty is whatever its parent may.

        The kernel does not empty the node set of a group with processes in it: such a group gets
        all nodes, those included that may appear later, which is the same.
        """

    def loose(self) -> Loose:
        """Return who cannot be confined."""

    def watched(self) -> tuple[Path, ...]:
        """Return the folders in which a new group appears, and the files that say who is confined.

        A change of any of them is a reason to look at `outsiders` again.
        """


def usable_nodes(root: Root) -> frozenset[int] | None:
    """Return the nodes with memory that the kernel can use for itself too, None if unknown.

    A group that has none of them cannot even map memory: mm/page_alloc.c,
    check_insane_mems_config.
    """
    return read_ids(root.sys / "devices/system/node/has_normal_memory")


def own_group(root: Root, controller: str = "") -> str | None:
    """Return the cgroup that this process is in, as /proc/PID/cgroup has it; "" is v2."""
    return (locations(root, os.getpid()) or {}).get(controller)


def is_ours_alone(root: Root, folder: Path) -> bool:
    """Return whether a group has this process in it, its children, and nobody else."""
    mine = {os.getpid(), *children_of(root, {os.getpid()})}
    inside = set(pids_in(folder))
    return os.getpid() in inside and inside <= mine


def loose_in(root: Root, folder: Path) -> Loose:
    """Return who is in this very group."""
    processes: list[Process] = []
    kernel_threads = 0
    for pid in own_pids(folder):
        try:
            found = find(root, pid)
        except KernelThread:
            kernel_threads += 1
        except NoSuchProcess:
            continue
        else:
            if pid != os.getpid():
                processes.append(found)
    return Loose(processes=tuple(processes), kernel_threads=kernel_threads)
