# SPDX-License-Identifier: Apache-2.0
"""The socket: who may connect, and how many.

The accept loop is our own because the library's stops for good when descriptors run out, and does
not tell a method who calls it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import TYPE_CHECKING

from asyncvarlink import VarlinkInterfaceRegistry
from asyncvarlink.serviceinterface import VarlinkServiceInterface

from zoned import __version__
from zoned.api.interfaces import INTERFACES
from zoned.daemon.connection import Connection, Transport
from zoned.daemon.peer import Peer, peer_of
from zoned.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zoned.api.backend import Backend

_log = logging.getLogger(__name__)

MOST_CONNECTIONS = 128
MOST_PER_USER = 32
"""Connections at once, in all and for one user that is not root."""

_BACKLOG = 128
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_ACCEPT = 1.0

_LAST_REPLIES = 10.0
"""Seconds that clients get to take their last replies when the daemon stops."""


class Server:
    """Listens on a Unix socket; every connection gets interfaces that know their caller."""

    def __init__(self, path: Path, backend_for: Callable[[Peer], Backend]) -> None:
        self._path = path
        self._backend_for = backend_for
        self._open: dict[Transport, int] = {}
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen. Raises MachineError. An old socket file is replaced."""
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            # Anybody may connect: what a caller may do is decided for each method.
            self._path.chmod(0o666)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            why = error.strerror or error
            raise MachineError(
                f"cannot listen on {self._path}: {why}", hint="take another --socket"
            ) from error
        self._socket = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    async def stop(self) -> None:
        """Stop listening and close all connections once what they asked for is done.

        A client that does not take its reply is cut off after a while.
        """
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)
        waiting = list(self._open)
        for transport in waiting:
            transport.pause_reading()
            transport.get_protocol().eof_received()
        if waiting:
            closed = [transport.closed_future for transport in waiting]
            await asyncio.wait(closed, timeout=_LAST_REPLIES)
        for transport in list(self._open):
            transport.abort()

    def _accept(self) -> None:
        if self._socket is None:
            return
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                self._pause_accepting()
            return
        self._serve(connection)

    def _pause_accepting(self) -> None:
        _log.warning("no descriptors left for another client; trying again in a second")
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket or -1)

        def resume() -> None:
            if self._socket is not None:
                loop.add_reader(self._socket, self._accept)

        loop.call_later(_RETRY_ACCEPT, resume)

    def _serve(self, connection: socket.socket) -> None:
        try:
            peer = peer_of(connection)
        except OSError:
            connection.close()
            return
        mine = sum(1 for uid in self._open.values() if uid == peer.uid)
        if len(self._open) >= MOST_CONNECTIONS or (not peer.is_root and mine >= MOST_PER_USER):
            _log.warning("user %s has too many connections", peer.user)
            connection.close()
            return
        protocol = Connection(self._registry(peer), lambda: self._forget(transport))
        transport = Transport(asyncio.get_running_loop(), connection, connection, protocol)
        self._open[transport] = peer.uid

    def _forget(self, transport: Transport) -> None:
        self._open.pop(transport, None)

    def _registry(self, peer: Peer) -> VarlinkInterfaceRegistry:
        registry = VarlinkInterfaceRegistry()
        backend = self._backend_for(peer)
        for interface in INTERFACES:
            registry.register_interface(interface(backend))
        registry.register_interface(
            VarlinkServiceInterface("zoned", "zoned", __version__, "", registry)
        )
        return registry
