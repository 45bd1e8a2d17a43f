# SPDX-License-Identifier: Apache-2.0
"""Which node a page frame is on, without asking the kernel for each.

Sources: Documentation/ABI/stable/sysfs-devices-node,
Documentation/admin-guide/mm/memory-hotplug.rst.
"""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING

import numpy as np

from zoned.kernel.memory_block import block_size, numbered

if TYPE_CHECKING:
    import numpy.typing as npt

    from zoned.kernel.root import Root

_MEMORY = re.compile(r"memory(\d+)")
_NODE = re.compile(r"node(\d+)")

UNKNOWN = -1
"""In place of a node: no memory block has the frame, or its block is on several nodes."""


class PageNodes:
    """The nodes of all memory blocks, as they were when it was made.

    Memory that is plugged in later is unknown to it. Several threads may use it at a time.
    """

    def __init__(self, root: Root) -> None:
        """Read the blocks of each node: one listing per node.

        Raises MachineError for a block size that cannot be read.
        """
        size = block_size(root)
        nodes = _nodes_of_blocks(root) if size else {}
        firsts, values = [0], [UNKNOWN]
        for number in sorted(nodes):
            if number == firsts[-1]:
                values[-1] = nodes[number]
            else:
                firsts.append(number)
                values.append(nodes[number])
            firsts.append(number + 1)
            values.append(UNKNOWN)
        starts = np.array(firsts, np.uint64) * np.uint64((size or 0) // mmap.PAGESIZE)
        table = np.array(values, np.int32)
        # Few nodes have their blocks scattered: a table of where the node changes is small,
        # however far apart the addresses are.
        changes = np.concatenate(([True], table[1:] != table[:-1]))
        self._starts, self._nodes = starts[changes], table[changes]

    def nodes(self, pfns: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        """Return the node of each page frame, UNKNOWN where the blocks do not tell."""
        return self._nodes[np.searchsorted(self._starts, pfns, side="right") - 1]


def _nodes_of_blocks(root: Root) -> dict[int, int]:
    folder = root.sys / "devices/system/node"
    found: dict[int, int] = {}
    for node in numbered(folder, _NODE):
        for block in numbered(folder / f"node{node}", _MEMORY):
            found[block] = node if block not in found else UNKNOWN
    return found
