# SPDX-License-Identifier: Apache-2.0
"""The socket: who may connect, how much may be sent, and what becomes of errors.

The accept loop is our own because the library's stops for good when descriptors run out, and does
not tell a method who calls it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import TYPE_CHECKING

from asyncvarlink import (
    VarlinkInterfaceRegistry,
    VarlinkInterfaceServerProtocol,
    VarlinkTransport,
)
from asyncvarlink.serviceinterface import VarlinkServiceInterface

from zoned import __version__
from zoned.api.interfaces import INTERFACES, Failed
from zoned.daemon.peer import Peer, peer_of
from zoned.errors import BadInput, Bug, MachineError, MessageTooLarge, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncvarlink import FileDescriptorArray
    from asyncvarlink.message import VarlinkMethodReply

    from zoned.api.interfaces import Backend

_log = logging.getLogger(__name__)

LARGEST_MESSAGE = 1 << 20
"""Bytes of one request. The largest that makes sense is some KiB."""

IDLE = 300.0
"""Seconds after which a connection without a request is closed."""

MOST_CONNECTIONS = 128
MOST_PER_USER = 32
"""Connections at once, in all and for one user that is not root."""

_BACKLOG = 128
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_ACCEPT = 1.0

_TURN = 64 << 10
"""Bytes that one client may have read before the others, and the watchdog, have their turn."""

_MOST_UNREAD = 64
"""Replies that a client may leave unread."""

_LAST_REPLIES = 10.0
"""Seconds that clients get to take their last replies when the daemon stops."""


class _Transport(VarlinkTransport):
    """Reads no more than a turn's worth at once: the library's reads for as long as data comes."""

    MAX_RECV_FDS = 0  # No method takes a descriptor; the kernel drops what is sent all the same.
    _left = _TURN

    def _handle_read_socket_peek(self) -> None:
        self._left = _TURN
        super()._handle_read_socket_peek()

    def _sock_receive_fds(self, size: int) -> int:
        if self._left <= 0:
            return 0
        received = super()._sock_receive_fds(size)
        self._left -= received
        return received


class Connection(VarlinkInterfaceServerProtocol):
    """One client's connection, with limits on what it may send and how long it may be silent."""

    def __init__(self, registry: VarlinkInterfaceRegistry, closed: Callable[[], None]) -> None:
        super().__init__(registry)
        self._closed = closed
        self._discarding = False
        self._unread = 0
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._restart_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._closed()
        super().connection_lost(exc)

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        """Pass data on, but never hold more of one message than the limit.

        The rest of a message that is too large is read and dropped, so that its sender, who may
        still be writing, gets to see the error.
        """
        self._restart_idle()
        # Data can hold the end of one message and the start of the next.
        *ends, rest = data.split(b"\0")
        for end in ends:
            self._take(end + b"\0", fds)
        if rest:
            self._take(rest, fds)

    def _take(self, piece: bytes, fds: FileDescriptorArray | None) -> None:
        ends = piece.endswith(b"\0")
        if self._discarding:
            self._discarding = not ends
        elif len(self._recv_buffer) + len(piece) > LARGEST_MESSAGE:
            self._discarding = not ends
            self._recv_buffer = b""
            most = f"a request may have {LARGEST_MESSAGE} bytes"
            self.send_error(_failed(MessageTooLarge(most, hint="this one was not read")))
        else:
            self._parse(piece, fds)

    def send_reply(
        self,
        reply: VarlinkMethodReply,
        fds: list[int] | None = None,
        autoclose: bool = True,  # noqa: FBT001, FBT002 - the library's signature
    ) -> asyncio.Future[None]:
        """Send a reply; hang up on a client that asks and asks and never reads."""
        sent = super().send_reply(reply, fds, autoclose)
        self._unread += 1
        sent.add_done_callback(self._count_read)
        if self._unread > _MOST_UNREAD and isinstance(self._transport, VarlinkTransport):
            _log.warning("a client left %d replies unread", _MOST_UNREAD)
            self._transport.abort()
        return sent

    def _count_read(self, _: asyncio.Future[None]) -> None:
        self._unread -= 1

    def error_received(self, err: Exception, data: bytes, fds: FileDescriptorArray | None) -> None:
        """Answer what is no JSON object with an error, and hang up: what follows means nothing."""
        del data, fds
        self._recv_buffer = b""
        answer = BadInput(f"the request is no JSON object: {err}", hint="see zonectl(1), varlink")
        self.send_error(_failed(answer)).add_done_callback(lambda _: self.close())

    def handle_call_exception(self, exc: BaseException, oneway: bool) -> None:  # noqa: FBT001
        """Turn what a method raised into a reply."""
        if oneway:
            return
        if not isinstance(exc, ZonedError):
            _log.error("a request failed in an unexpected way", exc_info=exc)
            exc = Bug(f"{type(exc).__name__}: {exc}", hint="see the daemon's log, and report it")
        self.send_error(_failed(exc))

    def _parse(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        try:
            super().message_received(data, fds)
        except (ValueError, RecursionError) as error:
            self.error_received(error, data, fds)

    def _restart_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE, self._give_up)

    def _give_up(self) -> None:
        if self._inflight:
            self._restart_idle()
        else:
            self.close()


def _failed(error: ZonedError) -> Failed:
    return Failed(code=error.code, message=error.message, hint=error.hint)


class Server:
    """Listens on a Unix socket; every connection gets interfaces that know their caller."""

    def __init__(self, path: Path, backend_for: Callable[[Peer], Backend]) -> None:
        self._path = path
        self._backend_for = backend_for
        self._open: dict[_Transport, int] = {}
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
        transport = _Transport(asyncio.get_running_loop(), connection, connection, protocol)
        self._open[transport] = peer.uid

    def _forget(self, transport: _Transport) -> None:
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
