# SPDX-License-Identifier: Apache-2.0
"""Which node a page goes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_MOST_NODES = 1024
"""of the largest kernels (CONFIG_NODES_SHIFT is 10 at most)"""

_RUN = 512
"""Folios that follow each other and go to the same node: what is used together stays together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """From which nodes to which. Pages that are on a target node stay.

    As many sources as targets: the first source's pages go to the first target, and so on, as
    migrate_pages(2) does. Else pages are dealt out in runs, in proportion to the weights.
    """

    targets: Mapping[int, int]
    """node -> weight (bytes it should take, for example); of several, one is above zero"""
    sources: frozenset[int] | None = None
    """None: every node that is no target"""

    @property
    def nodes(self) -> frozenset[int]:
        """The target nodes."""
        return frozenset(self.targets)

    def misplaced(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Tell which pages, by the node they are on, have to move."""
        if self.sources is None:
            return ~among(nodes, self.nodes) & (nodes >= 0)
        return among(nodes, self.sources - self.nodes)

    def assign(self, nodes: NDArray[np.int32], begin: int = 0) -> NDArray[np.int32]:
        """Return the target of each misplaced page. `begin` is how many came before these."""
        targets = sorted(self.targets)
        pairs = self._pairs()
        if pairs:
            table = np.zeros(max(pairs) + 1, np.int32)
            for source, target in pairs.items():
                table[source] = target
            return table[nodes]
        if len(targets) == 1:
            return np.full(len(nodes), targets[0], np.int32)
        weights = np.array([max(0, self.targets[node]) for node in targets], np.float64)
        edges = np.cumsum(weights) / (weights.sum() or 1.0)
        # A sequence that fills the unit interval evenly (multiples of the golden ratio), so that
        # any stretch of runs is dealt out by weight.
        runs = (begin + np.arange(len(nodes))) // _RUN
        places = np.searchsorted(edges, (runs * 0.6180339887498949) % 1.0, side="right")
        return np.array(targets, np.int32)[np.minimum(places, len(targets) - 1)]

    def _pairs(self) -> dict[int, int]:
        if self.sources is None or len(self.sources) != len(self.targets):
            return {}
        return dict(zip(sorted(self.sources), sorted(self.targets), strict=True))


def among(nodes: NDArray[np.int32], chosen: frozenset[int]) -> NDArray[np.bool_]:
    """Tell which are among the chosen nodes; -1, no node, is not."""
    table = np.zeros(_MOST_NODES + 1, np.bool_)
    table[list(chosen)] = True
    return table[nodes]
