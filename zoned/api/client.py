# SPDX-License-Identifier: Apache-2.0
"""Talking to the daemon from a program that is not asynchronous itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncvarlink import (
    VarlinkClientProtocol,
    VarlinkErrorReply,
    VarlinkTransport,
    connect_unix_varlink,
)
from asyncvarlink.conversion import ConversionError

from zoned.api.interfaces import Failed
from zoned.errors import Bug, Denied, NoDaemon, ZonedError, revive

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Iterator

    from asyncvarlink import VarlinkInterface

SOCKET = Path("/run/zoned/io.zoned")
"""Where the daemon listens unless it is told otherwise."""


class Client:
    """One connection. Raises NoDaemon where nobody listens, Denied where it may not be opened."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket
        self._loop = asyncio.new_event_loop()
        self._transport: VarlinkTransport | None = None
        self._streams: list[AsyncGenerator[Any, None]] = []
        try:
            self._transport, self._protocol = self._loop.run_until_complete(
                connect_unix_varlink(VarlinkClientProtocol, socket)
            )
        except OSError as error:
            self._loop.close()
            raise _unreachable(socket, error) from error

    def call(self, interface: type[VarlinkInterface], method: str, **parameters: Any) -> Any:
        """Call a method and return its result, as the interface declares it.

        Raises the ZonedError that the daemon replied with.
        """
        proxy = getattr(self._protocol.make_proxy(interface), method)
        with _errors():
            return _only(self._loop.run_until_complete(proxy(**parameters)))

    def stream(
        self, interface: type[VarlinkInterface], method: str, **parameters: Any
    ) -> Iterator[Any]:
        """Call a method that answers more than once, and yield each result when it comes.

        Raises the ZonedError that the daemon replied with; NoDaemon where the connection breaks
        before the last result. A caller that does not take all of them has closed the connection.
        """
        if self._transport is None or self._transport.is_closing():
            # The library would wait for an answer for ever.
            raise _hung_up()
        proxy = getattr(self._protocol.make_proxy(interface), method)
        results: AsyncGenerator[Any, None] = proxy(**parameters)
        self._streams.append(results)
        whole = False
        try:
            while not whole:
                with _errors():
                    found = self._next(results)
                whole = found is None
                if not whole:
                    yield _only(found)
        except (Bug, NoDaemon):
            raise
        except ZonedError:
            whole = True
            raise
        finally:
            self._leave(results, whole=whole)

    def _next(self, results: AsyncGenerator[Any, None]) -> Any:
        task = self._loop.create_task(_next_or_none(results))
        try:
            return self._loop.run_until_complete(task)
        finally:
            # What a signal's handler raises ends the loop, not the task.
            task.cancel()
            self._loop.run_until_complete(_settled(task))

    def _leave(self, results: AsyncGenerator[Any, None], *, whole: bool) -> None:
        if self._loop.is_closed():
            return
        self._streams.remove(results)
        if not whole:
            self._hang_up()
        # The library complains of what was told and never taken.
        self._loop.run_until_complete(_settled(_take_all(results)))

    def close(self) -> None:
        """Close the connection."""
        if not self._loop.is_closed():
            self._hang_up()
            for results in self._streams.copy():
                self._leave(results, whole=False)
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._loop.run_until_complete(self._transport.closed_future)
            self._transport = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _next_or_none(results: AsyncGenerator[Any, None]) -> Any:
    return await anext(results, None)


async def _take_all(results: AsyncGenerator[Any, None]) -> None:
    async for _ in results:
        pass


async def _settled(work: Awaitable[Any]) -> None:
    await asyncio.gather(work, return_exceptions=True)


def _only(result: dict[str, Any]) -> Any:
    return next(iter(result.values()), None)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Raise what comes over the socket as the errors of zoned."""
    try:
        yield
    except Failed as error:
        raise revive(error.p_code, error.p_message, error.p_hint) from error
    except (VarlinkErrorReply, ConversionError, ValueError, TypeError) as error:
        raise Bug(
            f"the daemon answered {error}", hint="are its version and mine the same?"
        ) from error
    except OSError as error:
        raise _hung_up() from error


def _hung_up() -> NoDaemon:
    return NoDaemon(
        "the daemon closed the connection before it answered",
        hint="see its log: journalctl -u zoned",
    )


def _unreachable(socket: Path, error: OSError) -> ZonedError:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Denied(f"you may not open {socket}", hint="ask as root")
    return NoDaemon(
        f"no daemon listens on {socket}: {error.strerror or error}",
        hint="start it: systemctl start zoned, or zoned run",
    )
