# SPDX-License-Identifier: Apache-2.0
"""What lies where in physical memory, as drivers and firmware have claimed it.

Sources: proc_iomem(5), Documentation/admin-guide/mm/memory-hotplug.rst ("Onlining and Offlining
Memory Blocks": drivers name what they add themselves), drivers/dax/kmem.c and
drivers/virtio/virtio_mem.c ("System RAM (kmem)", "System RAM (virtio_mem)"),
drivers/cxl/acpi.c ("CXL Window").
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.kernel.root import Root

_LINE = re.compile(r"( *)([0-9a-f]+)-([0-9a-f]+) : (.*)")
_RAM = "System RAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One range of physical addresses."""

    start: int
    end: int
    """the last byte"""
    name: str
    above: tuple[str, ...] = ()
    """the names of the ranges that it lies in, outermost first"""


def read_iomem(root: Root) -> tuple[Resource, ...] | None:
    """Return all ranges, an outer one before those inside of it.

    None where there is no such file, or where it does not tell the addresses: to all but root it
    shows zeros. Raises MachineError where it cannot be read.
    """
    text = read_text(root.proc / "iomem")
    if text is None:
        return None
    found: list[Resource] = []
    names: list[str] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        depth = len(match[1]) // 2
        names[depth:] = [match[4]]
        found.append(
            Resource(
                start=int(match[2], 16),
                end=int(match[3], 16),
                name=match[4],
                above=tuple(names[:depth]),
            )
        )
    return tuple(found) if any(each.end for each in found) else None


class RamMap:
    """Which range of system memory an address lies in."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        # Ranges of system memory never overlap, so that the last one that begins before decides.
        self._ranges = sorted(
            (each for each in resources if each.name.startswith(_RAM)), key=lambda each: each.start
        )
        self._starts = [each.start for each in self._ranges]

    def find(self, start: int, size: int) -> Resource | None:
        """Return the first range of system memory that has any of these bytes."""
        index = max(0, bisect_right(self._starts, start) - 1)
        for each in self._ranges[index : index + 2]:
            if each.start < start + size and each.end >= start:
                return each
        return None
