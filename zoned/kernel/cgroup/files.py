# SPDX-License-Identifier: Apache-2.0
"""What the files of a memory cgroup say, as values. A missing file is None: "unknown".

Source: Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files" and "Cpuset Interface
Files"; Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.root import read_ids, read_int, read_text
from zoned.model.zone import Events, Group, Limits, Pressure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")

# PAGE_COUNTER_MAX of include/linux/page_counter.h, in bytes: what the kernel calls "max".
_UNLIMITED = ((1 << 63) - 1) // PAGE * PAGE

# The lines of memory.numa_stat that do not overlap: their sum is what is charged on a node.
_DISJOINT = frozenset(
    {
        "anon",
        "file",
        "kernel_stack",
        "pagetables",
        "sec_pagetables",
        "slab_reclaimable",
        "slab_unreclaimable",
    }
)


def os_errno(error: MachineError) -> int | None:
    """Return the errno behind a failed read or write of `zoned.kernel.root`."""
    cause = error.__cause__
    return cause.errno if isinstance(cause, OSError) else None


def round_size(size: int | None) -> int | None:
    """Return a size as the kernel shows it after a write: whole pages, None if that is no limit."""
    if size is None or size >= _UNLIMITED:
        return None
    return size // PAGE * PAGE


def read_size(path: Path) -> int | None:
    """Return a limit in bytes; None for "max", for v1's huge number, and where there is no file."""
    return round_size(read_int(path))


def read_optional(path: Path) -> str | None:
    """Return the file's text, None also where the kernel has the file but not what it is for."""
    try:
        return read_text(path)
    except MachineError as error:
        if os_errno(error) == errno.EOPNOTSUPP:
            return None
        raise


def read_keyed(path: Path) -> dict[str, int]:
    """Return a "flat keyed" file (memory.stat, memory.events); empty where there is none."""
    pairs = (line.split() for line in (read_optional(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _nodes_of(words: list[str]) -> dict[int, int]:
    pairs = (word[1:].partition("=") for word in words if word[:1] == "N")
    return {int(node): int(value) for node, _, value in pairs if node.isdigit() and value.isdigit()}


def read_by_node(path: Path) -> dict[int, int]:
    """Return node -> bytes charged there, from memory.numa_stat; empty where there is none."""
    total: dict[int, int] = {}
    for line in (read_optional(path) or "").splitlines():
        name, *words = line.split()
        if name in _DISJOINT:
            for node, size in _nodes_of(words).items():
                total[node] = total.get(node, 0) + size
    return total


def read_by_node_v1(path: Path) -> dict[int, int]:
    """Return node -> bytes, from v1's memory.numa_stat, which counts pages on the LRU lists."""
    for line in (read_optional(path) or "").splitlines():
        name, *words = line.split()
        if name.startswith("hierarchical_total="):
            return {node: pages * PAGE for node, pages in _nodes_of(words).items()}
    return {}


def read_events(path: Path) -> Events:
    """Return the counters of memory.events, which include those of child groups."""
    found = read_keyed(path)
    return Events(
        oom=found.get("oom"),
        oom_kill=found.get("oom_kill"),
        max=found.get("max"),
        high=found.get("high"),
    )


def _averages(line: str) -> dict[str, float]:
    return {key: float(value) for key, _, value in (word.partition("=") for word in line.split())}


def read_pressure(path: Path) -> Pressure | None:
    """Return memory.pressure; None without PSI (CONFIG_PSI, psi=0, cgroup.pressure=0)."""
    lines = {
        name: _averages(rest)
        for name, _, rest in (
            line.partition(" ") for line in (read_optional(path) or "").splitlines()
        )
    }
    if "some" not in lines or "full" not in lines:
        return None
    some, full = lines["some"], lines["full"]
    return Pressure(
        some_10s=some["avg10"],
        some_60s=some["avg60"],
        full_10s=full["avg10"],
        full_60s=full["avg60"],
    )


def partition_is_valid(text: str | None) -> bool:
    """Return whether cpuset.cpus.partition tells of a partition that is in force."""
    return text in {"root", "isolated"}


def read_limits(folder: Path) -> Limits:
    """Return the limits of a v2 group. A controller that is not enabled there limits nothing."""
    return Limits(
        max=read_size(folder / "memory.max"),
        high=read_size(folder / "memory.high"),
        min=read_size(folder / "memory.min") or 0,
        swap=read_size(folder / "memory.swap.max"),
        mems=read_ids(folder / "cpuset.mems") or None,
        cpus=read_ids(folder / "cpuset.cpus") or None,
        exclusive_cpus=partition_is_valid(read_text(folder / "cpuset.cpus.partition")),
    )


def read_group(folder: Path, *, zone: str, path: str, pids: tuple[int, ...]) -> Group:
    """Return all that a v2 group shows. `path` is the group's as `Group.path` has it."""
    stat: Mapping[str, int] = read_keyed(folder / "memory.stat")
    return Group(
        zone=zone,
        path=path,
        limits=read_limits(folder),
        effective_mems=read_ids(folder / "cpuset.mems.effective"),
        used=read_int(folder / "memory.current"),
        anon=stat.get("anon"),
        peak=read_int(folder / "memory.peak"),
        swap_used=read_int(folder / "memory.swap.current"),
        by_node=read_by_node(folder / "memory.numa_stat"),
        events=read_events(folder / "memory.events"),
        pressure=read_pressure(folder / "memory.pressure"),
        pids=pids,
    )
