# SPDX-License-Identifier: Apache-2.0
"""Watching over the fence for as long as one stands: new groups are to be kept off too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from zoned.errors import Unsupported, ZonedError
from zoned.kernel.cgroup.watch import GroupWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.engine.machine import Machine

_log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two looks, so that somebody who writes on and on does not keep zoned busy."""


class FenceGuard:
    """Has the machine looked at when a group appears, or gets other nodes. Of the event loop's
    thread, but for `Machine.fence_changed`, which it sets.
    """

    def __init__(self, machine: Machine, look: Callable[[], None]) -> None:
        self._machine = machine
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._watch: GroupWatch | None = None
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        machine.fence_changed = self._changed

    def close(self) -> None:
        """Watch no more."""
        self._closed = True
        self._machine.fence_changed = lambda: None
        self._end()

    def _changed(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._follow)

    def _follow(self) -> None:
        if self._machine.own_memory is not None:
            self._machine.own_memory.follow()
        fence = self._machine.fence
        if fence is None or self._closed or not self._machine.ledger.touched.fence:
            self._end()
            return
        try:
            new = self._watch is None
            if self._watch is None:
                self._watch = GroupWatch()
                self._loop.add_reader(self._watch.fileno(), self._on_event)
            self._watch.follow(fence.watched())
        except Unsupported as error:
            _log.warning("%s; looking from time to time instead", error)
        except ZonedError as error:
            _log.warning("cannot watch all groups: [%s] %s", error.code, error)
        else:
            if new:
                # What appeared before it was watched was not heard.
                self._look()

    def _on_event(self) -> None:
        if self._watch is None or not self._watch.drain() or self._timer is not None:
            return
        now = self._loop.time()
        if now >= self._next:
            self._act()
        else:
            self._timer = self._loop.call_at(self._next, self._act)

    def _act(self) -> None:
        self._timer = None
        self._next = self._loop.time() + PAUSE
        self._look()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None
