# SPDX-License-Identifier: Apache-2.0
"""Where this process's own memory comes from.

The daemon is in no cpuset, because that would also limit where it can move the pages of others;
so it keeps its own memory off nodes by memory policy, which counts for nothing but what its
threads allocate. MPOL_BIND, as a mere preference would be given up under pressure; with
MPOL_F_STATIC_NODES, so that a change of the nodes that it may use does not shift the set.

Source: set_mempolicy(2). A policy is a thread's own, and handed on to the threads and processes
that it starts.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from zoned.errors import NoSuchProcess
from zoned.kernel.migrate import move_all_pages
from zoned.kernel.syscalls import MPOL_BIND, MPOL_DEFAULT, MPOL_F_STATIC_NODES, set_mempolicy

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_log = logging.getLogger(__name__)


class OwnMemory:
    """The nodes that this process's threads are to take memory from. Thread-safe."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._nodes: frozenset[int] = frozenset()
        self._ever = False
        self._thread = threading.local()

    def keep_to(self, nodes: frozenset[int]) -> None:
        """Take memory from these nodes alone; empty is from any, as the process started.

        What it has elsewhere moves. Other threads have to call `follow` themselves.
        """
        if nodes != self._nodes:
            self._nodes, self._ever = nodes, True
        # Again each time: threads that had not been told yet took memory elsewhere meanwhile.
        if self.follow() and nodes:
            self._move(nodes)

    def follow(self) -> bool:
        """Have this thread do as was said; return False where the kernel refuses.

        Costs nothing where the thread does so already.
        """
        nodes = self._nodes
        if not self._ever or getattr(self._thread, "nodes", None) == nodes:
            return True
        # Also after a failure: it would be told at each call.
        self._thread.nodes = nodes
        mode = MPOL_BIND | MPOL_F_STATIC_NODES if nodes else MPOL_DEFAULT
        try:
            set_mempolicy(mode, nodes)
        except OSError as error:
            _log.warning("the daemon's own memory may lie anywhere: %s", error)
            return False
        return True

    def _move(self, nodes: frozenset[int]) -> None:
        try:
            left = move_all_pages(self._root, os.getpid(), nodes)
        except NoSuchProcess:
            return
        if left:
            _log.info("%d pages of the daemon's own stayed where they were", left)
