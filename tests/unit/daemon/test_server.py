# SPDX-License-Identifier: Apache-2.0
"""The socket: who may connect, and how it is opened and closed."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.daemon.talk import Bench, request, run
from zoned.daemon import server as server_module
from zoned.daemon.peer import Peer
from zoned.daemon.server import MOST_PER_USER, Server
from zoned.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path


def test_requests_are_answered_and_callers_known(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        assert await talk.ask("Zones.List") == {"parameters": {"zones": []}}
        assert await talk.ask("Policy.Reload") == {}
        info = b'{"method":"org.varlink.service.GetInfo"}\0'
        await talk.send(info)
        assert (await talk.reply())["parameters"]["product"] == "zoned"
        assert [(peer.pid, peer.uid) for peer in bench.peers] == [(os.getpid(), os.getuid())]
        assert bench.path.stat().st_mode & 0o777 == 0o666

    run(tmp_path, body)


def test_stopping_lets_what_is_under_way_be_answered(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        talk, idle = await bench.talk(), await bench.talk()
        assert "parameters" in await idle.ask("Zones.List")
        await talk.send(request("Reset"))
        await bench.backend.entered.wait()
        stopping = asyncio.create_task(bench.server.stop())
        assert await idle.ended()
        assert not stopping.done()
        bench.backend.gate.set()
        assert await talk.reply() == {"parameters": {"left": ["done"]}}
        await stopping

    run(tmp_path, body)


def test_stopping_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_LAST_REPLIES", 0.01)

    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        await talk.send(request("Reset"))
        await bench.backend.entered.wait()
        await bench.server.stop()
        assert await talk.ended()

    run(tmp_path, body)


def test_nobody_takes_all_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = Peer(pid=7, uid=1000, gids=frozenset())
    root = Peer(pid=7, uid=0, gids=frozenset())
    now = [user]
    monkeypatch.setattr(server_module, "peer_of", lambda _: now[0])
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    async def body(bench: Bench) -> None:
        for _ in range(MOST_PER_USER):
            assert "parameters" in await (await bench.talk()).ask("Zones.List")
        assert await (await bench.talk()).ended()
        now[0] = root
        for _ in range(MOST_PER_USER + 1):
            assert "parameters" in await (await bench.talk()).ask("Zones.List")
        now[0] = user
        bench.talks[0].writer.close()
        assert await bench.talks[0].ended()
        while len(bench.server._open) > 2 * MOST_PER_USER:
            await asyncio.sleep(0)
        assert "parameters" in await (await bench.talk()).ask("Zones.List")
        monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 1)
        now[0] = root
        assert await (await bench.talk()).ended()

    run(tmp_path, body)


def test_a_caller_that_cannot_be_known_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: socket.socket) -> Peer:
        raise OSError(errno.ENOTCONN, "gone")

    monkeypatch.setattr(server_module, "peer_of", unknown)

    async def body(bench: Bench) -> None:
        assert await (await bench.talk()).ended()

    run(tmp_path, body)


class BadListener:
    """A listening socket whose next accept fails."""

    def __init__(self, listener: socket.socket, number: int) -> None:
        self._listener, self._errors = listener, [OSError(number, "no")]

    def accept(self) -> tuple[socket.socket, Any]:
        if self._errors:
            raise self._errors.pop()
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ECONNABORTED])
def test_accepting_goes_on_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(server_module, "_RETRY_ACCEPT", 0.01)

    async def body(bench: Bench) -> None:
        listener = bench.server._socket
        assert listener is not None
        bench.server._socket = BadListener(listener, number)  # type: ignore[assignment]
        assert "parameters" in await (await bench.talk()).ask("Zones.List")

    run(tmp_path, body)


def test_an_old_socket_is_replaced_and_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "deep/socket"
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as old:
            old.bind(str(path))
        server = Server(path, lambda _: None)  # type: ignore[arg-type, return-value]
        server.start()
        server._accept()
        await server.stop()
        await server.stop()
        server._accept()
        for bad, why in (
            (tmp_path / ("x" * 120), "long"),
            (tmp_path / "file/socket", "File exists"),
        ):
            (tmp_path / "file").touch()
            with pytest.raises(MachineError, match=why) as error:
                Server(bad, lambda _: None).start()  # type: ignore[arg-type, return-value]
            assert error.value.hint

    asyncio.run(body())
