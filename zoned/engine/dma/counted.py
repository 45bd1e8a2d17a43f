# SPDX-License-Identifier: Apache-2.0
"""What reservations have of memory that the kernel still counts as a node's. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.model.dma.held import Held


def counted_bytes(reservations: Iterable[Held]) -> dict[int, int]:
    """Return node -> bytes of it that are huge pages of reservations, and nobody else's.

    Blocks that are offline are not counted in the node's memory, and those that were given to the
    kernel are everybody's.
    """
    found: dict[int, int] = {}
    for held in reservations:
        if held.rung is Rung.HUGETLB and held.node is not None:
            found[held.node] = found.get(held.node, 0) + sum(span.size for span in held.spans)
    return found
