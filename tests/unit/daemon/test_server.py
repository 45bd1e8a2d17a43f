# SPDX-License-Identifier: Apache-2.0
"""The socket: any bytes may come, and one client never stands in another's way."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from zoned.daemon import server as server_module
from zoned.daemon.peer import Peer
from zoned.daemon.server import LARGEST_MESSAGE, MOST_PER_USER, Server
from zoned.errors import MachineError, NoSuchZone, by_code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LIMIT = 20.0


class FakeBackend:
    """Does what the tests need of zoned.api.interfaces.Backend."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.calls: list[str] = []

    async def reload(self) -> None:
        self.calls.append("reload")

    async def reset(self) -> list[str]:
        self.entered.set()
        await self.gate.wait()
        self.calls.append("reset")
        return ["done"]

    async def show(self, name: str) -> None:
        if name == "bug":
            raise KeyError(name)
        raise NoSuchZone(f"there is no zone {name!r}", hint="zones: none")

    async def list_zones(self) -> list[Any]:
        return []


class Talk:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> dict[str, Any]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\0"), LIMIT)
        found: dict[str, Any] = json.loads(raw[:-1])
        return found

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        await self.send(request(method, **parameters))
        return await self.reply()

    async def code(self) -> str:
        found = await self.reply()
        assert found["error"] == "io.zoned.Failed"
        assert found["parameters"]["code"] in by_code()
        return str(found["parameters"]["code"])

    async def ended(self) -> bool:
        """Return whether the server hangs up."""
        try:
            return await asyncio.wait_for(self.reader.read(), LIMIT) == b""
        except ConnectionResetError:
            return True


def request(method: str, **parameters: object) -> bytes:
    call = {"method": f"io.zoned.{method}", "parameters": parameters}
    return json.dumps(call).encode() + b"\0"


class Bench:
    """A server with its backend, and the clients of one test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.backend = FakeBackend()
        self.server = Server(path, self.backend_for)
        self.peers: list[Peer] = []
        self.talks: list[Talk] = []

    def backend_for(self, peer: Peer) -> Any:
        self.peers.append(peer)
        return self.backend

    async def talk(self) -> Talk:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=1 << 22)
        self.talks.append(Talk(reader, writer))
        return self.talks[-1]

    async def close(self) -> None:
        self.backend.gate.set()
        for talk in self.talks:
            talk.writer.close()
        await self.server.stop()


def run(tmp_path: Path, body: Callable[[Bench], Awaitable[None]]) -> None:
    """Run a test's body beside a server, and see that nothing of it is left."""

    async def all_of_it() -> None:
        bench = Bench(tmp_path / "socket")
        bench.server.start()
        try:
            await asyncio.wait_for(body(bench), 3 * LIMIT)
        finally:
            await bench.close()
        assert not bench.server._open
        assert not bench.path.exists()

    asyncio.run(all_of_it())


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


def test_what_a_method_raises_is_the_reply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        assert await talk.ask("Zones.Show", name="x") == {
            "error": "io.zoned.Failed",
            "parameters": {
                "code": "no-such-zone",
                "message": "there is no zone 'x'",
                "hint": "zones: none",
            },
        }
        await talk.send(request("Zones.Show", name="bug"))
        assert await talk.code() == "bug"
        assert "KeyError" in caplog.text
        oneway = {"method": "io.zoned.Zones.Show", "parameters": {"name": "x"}, "oneway": True}
        await talk.send(json.dumps(oneway).encode() + b"\0")
        assert await talk.ask("Zones.List") == {"parameters": {"zones": []}}

    run(tmp_path, body)


@pytest.mark.parametrize(
    "call",
    [
        {"method": "io.zoned.Zones.Nothing"},
        {"method": "io.zoned.Zones.__init__"},
        {"method": "io.zoned.Zones._backend"},
        {"method": "io.nobody.List"},
        {"method": "List"},
        {"method": 5},
        {},
        {"method": "io.zoned.Zones.Show"},
        {"method": "io.zoned.Zones.Show", "parameters": {"name": 5}},
        {"method": "io.zoned.Zones.Show", "parameters": {"name": "x", "more": 1}},
        {"method": "io.zoned.Zones.Resize", "parameters": {"name": "x", "size": 1.5}},
    ],
)
def test_calls_of_the_wrong_form_get_one_error(tmp_path: Path, call: dict[str, Any]) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        await talk.send(json.dumps(call).encode() + b"\0")
        assert "error" in await talk.reply()
        assert await talk.ask("Zones.List") == {"parameters": {"zones": []}}

    run(tmp_path, body)


@pytest.mark.parametrize(
    "junk",
    [
        b"junk\0",
        b"\0",
        b"[]\0",
        b"5\0",
        b"\xff\xfe\0",
        b'{"method": \0',
        b"[" * 50_000 + b"\0",
        b'{"size": ' + b"9" * 5000 + b"}\0",
    ],
)
def test_what_is_no_request_is_told_and_hung_up_on(tmp_path: Path, junk: bytes) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        await talk.send(junk)
        assert await talk.code() == "bad-input"
        assert await talk.ended()
        assert await (await bench.talk()).ask("Zones.List") == {"parameters": {"zones": []}}

    run(tmp_path, body)


@pytest.mark.parametrize("size", [LARGEST_MESSAGE + 1, 10 << 20])
def test_a_message_that_is_too_large_is_dropped_and_the_next_one_read(
    tmp_path: Path, size: int
) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        await talk.send(b"x" * size + b"\0" + request("Zones.List"))
        assert await talk.code() == "message-too-large"
        assert await talk.reply() == {"parameters": {"zones": []}}

    run(tmp_path, body)


def test_a_large_message_that_is_still_allowed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        await talk.send(request("Zones.Show", name="y" * (LARGEST_MESSAGE - 1000)))
        assert await talk.code() == "no-such-zone"

    run(tmp_path, body)


def test_messages_in_pieces_and_together(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        both = request("Zones.List") + request("Zones.Show", name="x")
        for byte in both[:60]:
            await talk.send(bytes([byte]))
            await asyncio.sleep(0)
        await talk.send(both[60:])
        assert await talk.reply() == {"parameters": {"zones": []}}
        assert await talk.code() == "no-such-zone"

    run(tmp_path, body)


def test_a_message_can_end_and_the_next_begin_in_one_piece(tmp_path: Path) -> None:
    """What the transport hands over need not end where messages do."""

    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        assert "parameters" in await talk.ask("Zones.List")
        (transport,) = bench.server._open
        receive = transport.get_protocol().message_received
        receive(b"x" * LARGEST_MESSAGE, None)
        receive(b"xx", None)
        receive(b"xx\0" + request("Zones.List")[:-5], None)
        receive(request("Zones.List")[-5:] + request("Zones.Show", name="x"), None)
        assert await talk.code() == "message-too-large"
        assert await talk.reply() == {"parameters": {"zones": []}}
        assert await talk.code() == "no-such-zone"

    run(tmp_path, body)


def test_a_client_that_leaves_in_mid_call_does_not_stop_the_call(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        await talk.send(request("Reset"))
        await bench.backend.entered.wait()
        talk.writer.transport.abort()
        other = await bench.talk()
        assert await other.ask("Zones.List") == {"parameters": {"zones": []}}
        bench.backend.gate.set()
        await other.ask("Policy.Reload")
        assert "reset" in bench.backend.calls

    run(tmp_path, body)


def test_a_client_that_only_closes_its_side_still_gets_its_reply(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        await talk.send(request("Reset"))
        await bench.backend.entered.wait()
        talk.writer.write_eof()
        bench.backend.gate.set()
        assert await talk.reply() == {"parameters": {"left": ["done"]}}
        assert await talk.ended()

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


def test_a_flood_leaves_room_for_others(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.talk()
        other, (left, right) = await bench.talk(), socket.socketpair()
        with left, right:
            left.settimeout(0)
            bench.server._serve(right.dup())
            *_, transport = bench.server._open
            protocol, turns = transport.get_protocol(), [0]
            received = protocol.message_received

            def receive_and_refill(data: bytes, fds: Any) -> None:
                turns[-1] += len(data)
                received(data, fds)
                # The sender is always ahead: whatever is read is there again at once.
                if turns[-1] < 1 << 20:
                    with_room(left, b"x" * 65536)

            protocol.message_received = receive_and_refill
            with_room(left, b"x" * 65536)
            reply = asyncio.create_task(other.ask("Zones.List"))
            while not reply.done() or sum(turns) < 4 << 20:
                turns.append(0)
                await asyncio.sleep(0)
            assert reply.result() == {"parameters": {"zones": []}}
            assert max(turns) < 1 << 18

    run(tmp_path, body)


async def send_for_ever(talk: Talk, data: bytes) -> None:
    """Send until the other side hangs up."""
    while True:
        await talk.send(data)


def with_room(sender: socket.socket, data: bytes) -> None:
    """Send as much as fits."""
    try:
        while sender.send(data):
            pass
    except BlockingIOError:
        return


def test_a_client_that_never_reads_is_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bench: Bench) -> None:
        talk, other = await bench.talk(), await bench.talk()
        talk.reader._transport.pause_reading()  # type: ignore[attr-defined]
        much = request("Zones.Show", name="z" * 60_000)
        with pytest.raises(ConnectionError):
            await send_for_ever(talk, much)
        assert "replies unread" in caplog.text
        assert await other.ask("Zones.List") == {"parameters": {"zones": []}}

    run(tmp_path, body)


def test_silence_is_ended_but_not_while_a_call_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "IDLE", 0.02)

    async def body(bench: Bench) -> None:
        silent, busy = await bench.talk(), await bench.talk()
        await busy.send(request("Reset"))
        assert await silent.ended()
        bench.backend.gate.set()
        assert await busy.reply() == {"parameters": {"left": ["done"]}}
        assert await busy.ended()

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
