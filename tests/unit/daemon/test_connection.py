# SPDX-License-Identifier: Apache-2.0
"""One connection: any bytes may come, and one client never stands in another's way."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.daemon.talk import Bench, Talk, request, run
from zoned.daemon import connection as connection_module
from zoned.daemon.connection import LARGEST_MESSAGE

if TYPE_CHECKING:
    from pathlib import Path


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


def with_room(sender: socket.socket, data: bytes) -> None:
    """Send as much as fits."""
    try:
        while sender.send(data):
            pass
    except BlockingIOError:
        return


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
    monkeypatch.setattr(connection_module, "IDLE", 0.02)

    async def body(bench: Bench) -> None:
        silent, busy = await bench.talk(), await bench.talk()
        await busy.send(request("Reset"))
        assert await silent.ended()
        bench.backend.gate.set()
        assert await busy.reply() == {"parameters": {"left": ["done"]}}
        assert await busy.ended()

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (ConnectionResetError(104, "reset by peer"), False),
        (BrokenPipeError(32, "broken pipe"), False),
        (OSError(5, "input/output error"), True),
    ],
)
def test_only_what_is_no_hanging_up_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: OSError, *, logged: bool
) -> None:
    """Which of the two errors a client's going away makes is a matter of microseconds."""

    async def body(bench: Bench) -> None:
        talk = await bench.talk()
        assert "parameters" in await talk.ask("Zones.List")
        (transport,) = bench.server._open
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_exception(error)
        transport.get_protocol()._on_message_sent(sent)

    run(tmp_path, body)
    assert ("Sending reply failed" in caplog.text) is logged
