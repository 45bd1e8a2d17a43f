# SPDX-License-Identifier: Apache-2.0
"""What a node has free, and what it could give up.

Sources: proc_meminfo(5), Documentation/admin-guide/sysctl/vm.rst (min_free_kbytes),
mm/page_alloc.c (zoneinfo's watermarks).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.kernel.node import read_hugepages
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_PAGE = 4096
_FIELD = re.compile(r"^(?:Node \d+ )?([A-Za-z()_]+): +(\d+) kB$", re.MULTILINE)
_ZONE = re.compile(r"^Node (\d+), zone", re.MULTILINE)
_HIGH = re.compile(r"^ +high +(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Bytes of one node, now."""

    free: int
    """above the kernel's high watermarks: below them it begins to reclaim"""
    file_cache: int
    """clean pages of files, which the kernel drops when somebody needs the memory"""
    pool: int
    """free pages of the hugetlb pools"""


def read_room(root: Root, node: int) -> Room:
    """Return what the node has; zeros for one that does not tell.

    Raises MachineError for files that cannot be read.
    """
    folder = root.sys / f"devices/system/node/node{node}"
    text = read_text(folder / "meminfo")
    if text is None and node == 0 and not folder.is_dir():
        text = read_text(root.proc / "meminfo")
    found = {key: int(kib) * 1024 for key, kib in _FIELD.findall(text or "")}
    cache = found.get("Active(file)", 0) + found.get("Inactive(file)", 0)
    unclean = found.get("Dirty", 0) + found.get("Writeback", 0)
    return Room(
        free=max(0, found.get("MemFree", 0) - _watermarks(root).get(node, 0)),
        file_cache=max(0, cache - unclean),
        pool=sum(each.size * (each.free or 0) for each in read_hugepages(folder / "hugepages")),
    )


def _watermarks(root: Root) -> dict[int, int]:
    """Return node -> the sum of its zones' high watermarks in bytes."""
    found: dict[int, int] = {}
    # Text before the first zone, then number and text of each.
    _, *parts = _ZONE.split(read_text(root.proc / "zoneinfo") or "")
    for node, text in zip(parts[::2], parts[1::2], strict=True):
        high = _HIGH.search(text)
        found[int(node)] = found.get(int(node), 0) + (int(high[1]) if high else 0) * _PAGE
    return found
