# SPDX-License-Identifier: Apache-2.0
"""The kernel's device events, as the daemon hears them: who has to look again, and where."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from zoned.kernel.udev import OVERFLOW, EventMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.daemon.stopwatch import Stopwatch
    from zoned.kernel.udev import DeviceEvent

_log = logging.getLogger(__name__)

DEVICES = "pci"
SUBSYSTEMS = ("memory", "node", DEVICES)

_TIMED = frozenset({"add", "bind", "remove"})
_OF_DEVICES = _TIMED | {"unbind"}
"""A driver says how far a device reaches, so its coming and going counts, too."""


class Events:
    """Listens from the start on. Belongs to the event loop."""

    def __init__(
        self,
        memory_changed: Callable[[], None],
        devices_changed: Callable[[], None],
        stopwatch: Stopwatch,
    ) -> None:
        """Take what has memory, and what has devices, looked at. Raises Unsupported."""
        self._memory_changed = memory_changed
        self._devices_changed = devices_changed
        self._stopwatch = stopwatch
        self._monitor = EventMonitor(SUBSYSTEMS)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._monitor.fileno(), self._drain)

    def close(self) -> None:
        """Listen no more."""
        self._loop.remove_reader(self._monitor.fileno())

    def _drain(self) -> None:
        for event in self._monitor.drain():
            self._hear(event)

    def _hear(self, event: DeviceEvent) -> None:
        of_device = event.subsystem == DEVICES
        if of_device and event.action not in _OF_DEVICES:
            return
        _log.info("event: %s", event)
        if of_device and event.action in _TIMED:
            self._stopwatch.start(event)
        if not of_device:
            self._memory_changed()
        if of_device or event == OVERFLOW:
            self._devices_changed()
