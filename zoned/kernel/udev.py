# SPDX-License-Identifier: Apache-2.0
"""The kernel's device events, through pyudev (imported nowhere else).

Events are only a hint that something changed: what it is now is read again from sysfs. Where they
came faster than they were read, the socket has an error until somebody takes it: netlink(7).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from dataclasses import dataclass

import pyudev

from zoned.errors import Unsupported

_log = logging.getLogger(__name__)

_BUFFER = 16 << 20
"""Bytes for events that wait: hot-adding 64 GiB makes about a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent:
    """That something happened to a device."""

    action: str
    """``add``, ``bind``, ``online`` …, see Documentation/ABI/testing/sysfs-uevent"""
    subsystem: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.name}".rstrip()


OVERFLOW = DeviceEvent(action="overflow")
"""Events were lost, of whatever devices."""


class EventMonitor:
    """Events of some subsystems, straight from the kernel, on a file descriptor to be watched.

    Raises Unsupported where netlink cannot be used.
    """

    def __init__(self, subsystems: tuple[str, ...]) -> None:
        try:
            self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
            for subsystem in subsystems:
                self._monitor.filter_by(subsystem)
            self._grow_buffer()
            self._monitor.start()
        except (OSError, ImportError) as error:
            raise Unsupported(f"cannot listen to the kernel's device events: {error}") from error

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when an event waits."""
        return int(self._monitor.fileno())

    def drain(self) -> list[DeviceEvent]:
        """Take all waiting events.

        Those that were lost (the buffer overflowed) count as one, `OVERFLOW`: look at everything.
        """
        events = []
        while True:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:
                # pyudev looks before it reads, and tells of any error without its number.
                if (error.errno or take_error(self.fileno())) != errno.ENOBUFS:
                    raise
                events.append(OVERFLOW)
                continue
            if device is None:
                return events
            events.append(
                DeviceEvent(
                    action=str(device.action),
                    subsystem=str(device.subsystem),
                    name=str(device.sys_name),
                )
            )

    def _grow_buffer(self) -> None:
        try:
            self._monitor.set_receive_buffer_size(_BUFFER)
        except OSError as error:
            _log.debug("event buffer stays small: %s", error)


def take_error(file: int) -> int:
    """Return the number of the error that a socket has, which it then has no more; 0 without one.

    Source: socket(7), SO_ERROR.
    """
    with socket.socket(fileno=os.dup(file)) as found:
        return found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
