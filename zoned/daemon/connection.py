# SPDX-License-Identifier: Apache-2.0
"""One client's connection: limits on what it may send and leave unread, and answers that stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asyncvarlink import VarlinkInterfaceServerProtocol, VarlinkTransport
from asyncvarlink.message import VarlinkMethodReply
from asyncvarlink.serviceerrors import ExpectedMore

from zoned.api.interfaces import Failed
from zoned.errors import BadInput, Bug, MessageTooLarge, ZonedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from asyncvarlink import FileDescriptorArray, VarlinkInterfaceRegistry
    from asyncvarlink.interface import AnnotatedResult, VarlinkMethodSignature
    from asyncvarlink.message import VarlinkMethodCall

_log = logging.getLogger(__name__)

LARGEST_MESSAGE = 1 << 20
"""Bytes of one request. The largest that makes sense is some KiB."""

IDLE = 300.0
"""Seconds after which a connection without a request is closed."""

UNTAKEN = 60.0
"""Seconds for which one who follows a job may leave what it is told unread."""

_TURN = 64 << 10
"""Bytes that one client may have read before the others, and the watchdog, have their turn."""

_MOST_UNREAD = 64
"""Replies that a client may leave unread."""


class Transport(VarlinkTransport):
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

    def hung_up(self) -> bool:
        """Return whether the other side has closed the connection, and not its sending half only.

        While a call is carried out nothing is read, so this is not noticed by itself.
        """
        if self._sendfd is None:
            return True
        poll = select.poll()
        poll.register(self._sendfd, 0)
        return bool(poll.poll(0))


class Connection(VarlinkInterfaceServerProtocol):
    """One client's connection, with limits on what it may send and how long it may be silent."""

    def __init__(self, registry: VarlinkInterfaceRegistry, closed: Callable[[], None]) -> None:
        super().__init__(registry)
        self._closed = closed
        self._discarding = False
        self._unread = 0
        self._call: VarlinkMethodCall | None = None
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
        if self._unread > _MOST_UNREAD:
            _log.warning("a client left %d replies unread", _MOST_UNREAD)
            self._abort()
        return sent

    def _abort(self) -> None:
        if isinstance(self._transport, VarlinkTransport):
            self._transport.abort()

    def _on_message_sent(self, fut: asyncio.Future[None]) -> None:
        # That a client goes away before it has all replies is no failure of ours.
        if not isinstance(fut.exception(), ConnectionError):
            super()._on_message_sent(fut)

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

    def call_received(
        self, call: VarlinkMethodCall, fds: FileDescriptorArray | None
    ) -> asyncio.Future[None] | None:
        """Carry out a call. A method that streams may be called without `more`: it answers once,
        at its end.
        """
        self._call = call
        done: asyncio.Future[None] | None
        try:
            done = super().call_received(call, fds)
        except ExpectedMore:
            done = super().call_received(replace(call, more=True), fds)
        return done

    async def _call_async_method_more(
        self,
        method: Callable[..., AsyncGenerator[AnnotatedResult, None]],
        signature: VarlinkMethodSignature,
        pyparams: dict[str, Any],
    ) -> None:
        """Send what a method yields, for as long as somebody takes it.

        The library's own does not close the method where the client has gone. Where a method ends
        without a last result the connection ends, too.
        """
        call = self._call
        if call is None or call.oneway:
            return
        async with contextlib.aclosing(method(**pyparams)) as results:
            async for result in results:
                if call.more or not result.continues:
                    taken = await self._sent(result, signature)
                else:
                    taken = not self._hung_up()
                if not (taken and result.continues):
                    return
        self.close()

    async def _sent(self, result: AnnotatedResult, signature: VarlinkMethodSignature) -> bool:
        parameters = signature.return_type.tojson(result.parameters)
        sent = self.send_reply(VarlinkMethodReply(parameters, continues=result.continues))
        await asyncio.wait([sent], timeout=UNTAKEN)
        if not sent.done():
            _log.warning("a client that follows a job does not read what it is told")
            self._abort()
        return sent.done() and sent.exception() is None

    def _hung_up(self) -> bool:
        return not isinstance(self._transport, Transport) or self._transport.hung_up()

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
