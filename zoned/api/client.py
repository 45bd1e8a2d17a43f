# SPDX-License-Identifier: Apache-2.0
"""Talking to the daemon from a program that is not asynchronous itself."""

from __future__ import annotations

import asyncio
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
    from asyncvarlink import VarlinkInterface

SOCKET = Path("/run/zoned/io.zoned")
"""Where the daemon listens unless it is told otherwise."""


class Client:
    """One connection. Raises NoDaemon where nobody listens, Denied where it may not be opened."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket
        self._loop = asyncio.new_event_loop()
        self._transport: VarlinkTransport | None = None
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
        try:
            result = self._loop.run_until_complete(proxy(**parameters))
        except Failed as error:
            raise revive(error.p_code, error.p_message, error.p_hint) from error
        except (VarlinkErrorReply, ConversionError, ValueError, TypeError) as error:
            raise Bug(
                f"the daemon answered {error}", hint="are its version and mine the same?"
            ) from error
        except OSError as error:
            raise NoDaemon(
                "the daemon closed the connection before it answered",
                hint="see its log: journalctl -u zoned",
            ) from error
        return next(iter(result.values()), None) if result else None

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
            self._loop.run_until_complete(self._closed(self._transport))
            self._transport = None
            self._loop.close()

    @staticmethod
    async def _closed(transport: VarlinkTransport) -> None:
        await transport.closed_future

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unreachable(socket: Path, error: OSError) -> ZonedError:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Denied(f"you may not open {socket}", hint="ask as root")
    return NoDaemon(
        f"no daemon listens on {socket}: {error.strerror or error}",
        hint="start it: systemctl start zoned, or zoned run",
    )
