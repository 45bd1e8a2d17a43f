# SPDX-License-Identifier: Apache-2.0
"""The huge pages that this process holds for reservations: those that are in nobody's buffer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from zoned.errors import Bug, ZonedError
from zoned.kernel.hugetlb import HugePool
from zoned.model.dma.offer import without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zoned.kernel.root import Root
    from zoned.model.dma.held import Held, Lease


class HugePools:
    """The pools, by the names of their reservations. Thread-safe.

    They end with this process; the kernel's pool keeps the pages, and from there they are fetched
    again when they are asked for next.
    """

    def __init__(self, make: Callable[[Root, int, int], HugePool] = HugePool) -> None:
        """Take what makes an empty pool of a node and a size of pages."""
        self._make = make
        self._lock = threading.Lock()
        self._pools: dict[str, HugePool] = {}

    def pool(self, root: Root, held: Held, leases: Iterable[Lease]) -> HugePool:
        """Return the pool of a reservation of the rung `hugetlb`.

        Where this process has none yet, it is made of the pages on record that no lease has. It
        comes out short where others have some of those now, until the reservation is repaired.
        Raises MachineError, Unsupported.
        """
        with self._lock:
            pool = self._pools.get(held.name)
            if pool is None:
                pool = self._made(root, held)
                self._fetch(pool, held, leases)
                self._pools[held.name] = pool
            return pool

    def known(self, name: str) -> HugePool | None:
        """Return the pool of a reservation; None where this process has made none yet."""
        with self._lock:
            return self._pools.get(name)

    def end(self, name: str) -> None:
        """Give the pages of a reservation back to the kernel's pool."""
        with self._lock:
            pool = self._pools.pop(name, None)
        if pool is not None:
            pool.close()

    def close(self) -> None:
        """Give all pages back to the kernel's pools."""
        for name in list(self._pools):
            self.end(name)

    def _made(self, root: Root, held: Held) -> HugePool:
        if held.node is None or held.page is None:
            raise Bug(f"reservation {held.name} is not made of huge pages")
        return self._make(root, held.node, held.page)

    def _fetch(self, pool: HugePool, held: Held, leases: Iterable[Lease]) -> None:
        lent = [span for each in leases if each.reservation == held.name for span in each.segments]
        try:
            pool.gather(without(held.spans, lent))
        except ZonedError:
            pool.close()
            raise
