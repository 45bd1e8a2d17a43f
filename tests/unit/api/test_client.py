# SPDX-License-Identifier: Apache-2.0
"""The client against servers that answer, hang up and talk nonsense."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from zoned.api.client import Client
from zoned.api.interfaces import Policy, Service, Zones
from zoned.api.types import MoveReport
from zoned.errors import Bug, Denied, NoDaemon, NoSuchZone, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class FakeServer(threading.Thread):
    """Takes one connection; answers each request with what it was given, in turn."""

    def __init__(self, path: Path, answers: list[bytes | None]) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.requests: list[dict[str, Any]] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)

    def run(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            for answer in self._answers:
                if not self._take(connection) or answer is None:
                    return
                connection.sendall(answer)
            self._take(connection)

    def _take(self, connection: socket.socket) -> bool:
        data = b""
        while not data.endswith(b"\0"):
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        self.requests.append(json.loads(data[:-1]))
        return True


def reply(**parameters: object) -> bytes:
    return json.dumps({"parameters": parameters}).encode() + b"\0"


def error(name: str, **parameters: object) -> bytes:
    return json.dumps({"error": name, "parameters": parameters}).encode() + b"\0"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., FakeServer]]:
    servers = []

    def start(*answers: bytes | None) -> FakeServer:
        server = FakeServer(tmp_path / "socket", list(answers))
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.join(10)
        assert not server.is_alive()


def test_results_come_as_declared(serve: Callable[..., FakeServer]) -> None:
    report = {"processes": 2, "gone": 1, "foreign": None, "notes": ["a"]}
    server = serve(reply(left=["db: no"]), reply(report=report), reply())
    with Client(server.path) as client:
        assert client.call(Service, "Reset") == ["db: no"]
        found = client.call(Zones, "Attach", name="db", pid=7)
        assert found == MoveReport(processes=2, gone=1, foreign=None, notes=["a"])
        assert client.call(Policy, "Reload") is None
    assert server.requests == [
        {"method": "io.zoned.Reset"},
        {"method": "io.zoned.Zones.Attach", "parameters": {"name": "db", "pid": 7}},
        {"method": "io.zoned.Policy.Reload"},
    ]


def test_an_error_comes_back_as_its_class(serve: Callable[..., FakeServer]) -> None:
    failed = error("io.zoned.Failed", code="no-such-zone", message="no zone", hint="none")
    odd = error("io.zoned.Failed", code="from-the-future", message="what", hint="")
    with Client(serve(failed, odd).path) as client:
        with pytest.raises(NoSuchZone) as raised:
            client.call(Zones, "Show", name="x")
        assert (raised.value.message, raised.value.hint) == ("no zone", "none")
        with pytest.raises(ZonedError, match="what") as unknown:
            client.call(Zones, "Show", name="x")
        assert type(unknown.value) is ZonedError


@pytest.mark.parametrize(
    "answer",
    [
        error("org.varlink.service.MethodNotFound", method="Show"),
        error("org.varlink.service.InvalidParameter", parameter="name"),
        error("io.zoned.Failed", colour="red"),
        reply(zone={"name": "db"}),
        reply(zone=5),
        reply(),
        b"junk\0",
        b"\xff\xfe\0",
        b"[]\0",
        b'{"parameters": 5}\0',
    ],
)
def test_an_answer_that_makes_no_sense_is_a_bug(
    serve: Callable[..., FakeServer], answer: bytes
) -> None:
    with Client(serve(answer).path) as client, pytest.raises((Bug, NoDaemon)) as raised:
        client.call(Zones, "Show", name="x")
    assert raised.value.hint


def test_parameters_that_the_interface_does_not_have(serve: Callable[..., FakeServer]) -> None:
    with Client(serve().path) as client, pytest.raises(Bug):
        client.call(Zones, "Show", size=5)


def test_a_daemon_that_hangs_up(serve: Callable[..., FakeServer]) -> None:
    with Client(serve(None).path) as client:
        with pytest.raises(NoDaemon, match="before it answered") as raised:
            client.call(Service, "Reset")
        assert raised.value.exit_status == 3
        with pytest.raises(NoDaemon):
            client.call(Service, "Reset")
        client.close()
        client.close()


def test_nobody_listens(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(NoDaemon, match="No such file") as raised:
        Client(nowhere)
    assert raised.value.hint
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(nowhere))
    listener.close()
    with pytest.raises(NoDaemon, match="refused"):
        Client(nowhere)
    with pytest.raises(NoDaemon, match="too long"):
        Client(tmp_path / ("x" * 200))


def test_a_socket_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zoned.api.client.connect_unix_varlink", refuse)
    with pytest.raises(Denied) as raised:
        Client(tmp_path / "socket")
    assert raised.value.exit_status == 4
