# SPDX-License-Identifier: Apache-2.0
"""Which memory blocks to try first. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zoned.model.block import MOVABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.model.block import Outlook


def rank(outlooks: Iterable[Outlook]) -> list[Outlook]:
    """Return the blocks that can go offline, best first, and last those of which nobody knows.

    Best are those of movable memory: taking one costs the kernel nothing. Then those with the
    fewest pages to move away, then those at high addresses: low memory is what devices need.
    """
    return sorted((each for each in outlooks if each.can is not False), key=_cost)


def _cost(each: Outlook) -> tuple[bool, bool, float, int]:
    return each.can is None, each.block.zones != (MOVABLE,), _to_move(each), -each.block.start


def _to_move(each: Outlook) -> float:
    if each.pages is None:
        return math.inf
    return each.pages.movable + each.pages.huge + sum(each.pages.unmovable.values())
