# SPDX-License-Identifier: Apache-2.0
"""Talking to the daemon: varlink (https://varlink.org/Service) over a plain socket.

The library that serves it is made for programs that do many things at once: loading it takes longer
than most commands of zonectl.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import errno
import json
import os
import socket
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from zoned.api.convert import WrongShape, converted
from zoned.errors import Bug, Denied, NoDaemon, ZonedError, revive

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

T = TypeVar("T")

SOCKET = "/run/zoned/io.zoned"
"""Where the daemon listens unless it is told otherwise."""

_PREFIX = "io.zoned"
_CHUNK = 64 << 10
_MOST_FILES = 8
_INT = array.array("i").itemsize

_Path: TypeAlias = "str | os.PathLike[str]"
_Reply: TypeAlias = "tuple[str | None, dict[str, Any], bool]"
"""error or None, parameters, and whether another reply follows"""


class Client:
    """One connection, for one call at a time.

    Raises NoDaemon where nobody listens, Denied where it may not be opened.
    """

    def __init__(self, path: _Path = SOCKET) -> None:
        self._received = bytearray()
        self._files: list[int] | None = None
        """descriptors that came with the reply that is awaited; None where none is wanted"""
        try:
            self._socket = _connected(path)
        except OSError as error:
            raise _unreachable(path, error) from error

    def call(self, method: str, result: type[T], /, **parameters: Any) -> T:
        """Call a method, e.g. ``call("Zones.Show", ZoneDetail, name="db")``; return its result.

        Parameters are plain data or dataclasses. Raises the ZonedError that the daemon replied
        with; NoDaemon where the connection breaks; Bug where the result is no `result`.
        """
        with contextlib.closing(self._replies(method, parameters)) as replies:
            return _result(next(replies), result)

    def call_for_files(
        self, method: str, result: type[T], /, **parameters: Any
    ) -> tuple[T, list[int]]:
        """Call a method whose reply comes with descriptors; return its result and these.

        The result has them by their index. They are the caller's to close, and not inherited.
        Raises as `call` does; nothing is left open then.
        """
        files: list[int] = []
        self._files = files
        try:
            found = self.call(method, result, **parameters)
        except ZonedError:
            for file in files:
                os.close(file)
            raise
        finally:
            self._files = None
        return found, files

    def stream(self, method: str, result: type[T], /, **parameters: Any) -> Iterator[T]:
        """Call a method that answers more than once, and yield each result when it comes.

        Raises as `call` does; NoDaemon also where the connection breaks before the last result. A
        caller that does not take all of them has closed the connection.
        """
        with contextlib.closing(self._replies(method, parameters, more=True)) as replies:
            for reply in replies:
                yield _result(reply, result)

    def _replies(
        self, method: str, parameters: Mapping[str, Any], *, more: bool = False
    ) -> Generator[_Reply, None, None]:
        whole = False
        try:
            self._socket.sendall(_request(method, parameters, more=more))
            while not whole:
                reply = _parsed(self._receive())
                whole = not reply[-1]
                yield reply
        except OSError as error:
            raise _hung_up() from error
        finally:
            # What is still to come would be taken for an answer to the next call.
            if not whole:
                self.close()

    def _receive(self) -> bytes:
        while (end := self._received.find(b"\0")) < 0:
            more = self._read()
            if not more:
                raise _hung_up()
            self._received += more
        message = bytes(self._received[:end])
        del self._received[: end + 1]
        return message

    def _read(self) -> bytes:
        if self._files is None:
            return self._socket.recv(_CHUNK)
        room = socket.CMSG_SPACE(_MOST_FILES * _INT)
        data, found, *_ = self._socket.recvmsg(_CHUNK, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in found:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(content) // _INT * _INT
                self._files += array.array("i", content[:whole])
        return data

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(path: _Path) -> socket.socket:
    with contextlib.ExitStack() as undo:
        connection = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        connection.connect(os.fspath(path))
        undo.pop_all()
    return connection


def _request(method: str, parameters: Mapping[str, Any], *, more: bool) -> bytes:
    request: dict[str, Any] = {"method": f"{_PREFIX}.{method}"}
    if parameters:
        request["parameters"] = parameters
    if more:
        request["more"] = True
    return json.dumps(request, default=dataclasses.asdict).encode() + b"\0"


def _parsed(message: bytes) -> _Reply:
    try:
        reply = json.loads(message.decode())
    except ValueError as error:
        raise _nonsense(error) from error
    if isinstance(reply, dict):
        parts = (reply.get("error"), reply.get("parameters", {}), reply.get("continues", False))
        match parts:
            case (str() | None) as failure, dict() as parameters, bool() as continues:
                return failure, parameters, continues
    raise _nonsense("what is no reply of varlink")


def _result(reply: _Reply, result: type[T]) -> T:
    error, parameters, _ = reply
    if error is not None:
        raise _failure(error, parameters)
    # A method declares one result or none.
    (name, value), *others = parameters.items() or [("the result", None)]
    try:
        if others:
            raise WrongShape(f"{len(parameters)} results, not one")
        return converted(value, result, name)
    except WrongShape as wrong:
        raise _nonsense(wrong) from wrong


def _failure(error: str, parameters: dict[str, Any]) -> ZonedError:
    match error, parameters:
        case "io.zoned.Failed", {"code": str(code), "message": str(message), "hint": str(hint)}:
            return revive(code, message, hint)
    return _nonsense(f"{error}: {parameters}" if parameters else error)


def _nonsense(what: object) -> Bug:
    return Bug(f"the daemon answered {what}", hint="are its version and mine the same?")


def _hung_up() -> NoDaemon:
    return NoDaemon(
        "the daemon closed the connection before it answered",
        hint="see its log: journalctl -u zoned",
    )


def _unreachable(path: _Path, error: OSError) -> ZonedError:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Denied(f"you may not open {path}", hint="ask as root")
    return NoDaemon(
        f"no daemon listens on {path}: {error.strerror or error}",
        hint="start it: systemctl start zoned, or zoned run",
    )
