# SPDX-License-Identifier: Apache-2.0
"""Free pages that CPUs keep at hand. Source: mm/vmstat.c (zoneinfo_show_print).

Each CPU has lists of free pages of its own in each of the kernel's zones. A page in them has no
flag at all, so that nobody can tell it from one that the kernel uses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_LINE = re.compile(r"^(?:Node +(\d+), +zone +(\S+)| +count: +(\d+))$", re.MULTILINE)


def pages_at_hand(root: Root) -> dict[tuple[int, str], int]:
    """Return node and zone -> how many free pages all CPUs together keep at hand.

    Empty where the kernel does not tell. Raises MachineError where the file cannot be read.
    """
    found: dict[tuple[int, str], int] = {}
    place = None
    for node, zone, count in _LINE.findall(read_text(root.proc / "zoneinfo") or ""):
        if zone:
            place = int(node), zone
        elif place is not None:
            found[place] = found.get(place, 0) + int(count)
    return found
