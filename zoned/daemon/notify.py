# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager how the daemon is (sd_notify(3), the protocol in its notes)."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger(__name__)


def notify(*lines: str) -> bool:
    """Send lines such as ``READY=1``; return False where nobody asked for them."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        _log.warning("cannot tell the service manager %s: %s", lines[0], error)
        return False
    return True


def watchdog_interval() -> float | None:
    """Return how often, in seconds, a sign of life is due: half of what the manager allows."""
    try:
        allowed = int(os.environ["WATCHDOG_USEC"])
        meant = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return allowed / 2e6 if meant == os.getpid() and allowed > 0 else None
