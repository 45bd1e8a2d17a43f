# SPDX-License-Identifier: Apache-2.0
"""The client against servers that answer, hang up and talk nonsense."""

from __future__ import annotations

import gc
import json
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from zoned.api.client import Client
from zoned.api.interfaces import Jobs, Memory, Policy, Service, Zones
from zoned.api.types import JobInfo, RoomInfo, SurveyInfo
from zoned.errors import Bug, Denied, NoDaemon, NoSuchJob, NoSuchZone, ZonedError

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
        self._connection: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)

    def run(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            self._connection = connection
            for answer in self._answers:
                if not self._take(connection) or answer is None:
                    return
                connection.sendall(answer)
            self._take(connection)

    def hang_up(self) -> None:
        """Close the connection in the midst of it."""
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

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
def serve(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., FakeServer]]:
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
    gc.collect()
    logged = [*caplog.get_records("call"), *caplog.records]
    assert not logged, "nothing of the library's may end up on the user's terminal"


SURVEY: dict[str, Any] = {
    "what": "move memory of pid 7",
    "processes": 2,
    "by_node": [],
    "shared": 1,
    "locked": 0,
    "to_move": 5,
    "stays": {"pinned": 6},
    "rooms": [{"node": 1, "free": 9, "reclaimable": 0, "promised": 0, "pool": 0, "room": 9}],
    "fits": True,
    "seconds": 1,
}


def test_results_come_as_declared(serve: Callable[..., FakeServer]) -> None:
    server = serve(reply(left=["db: no"]), reply(survey=SURVEY), reply())
    with Client(server.path) as client:
        assert client.call(Service, "Reset") == ["db: no"]
        found = client.call(Memory, "Survey", kind="migrate", pid=7, target="1", rate=5)
        room = RoomInfo(node=1, free=9, reclaimable=0, promised=0, pool=0, room=9)
        assert found == SurveyInfo(**(SURVEY | {"rooms": [room], "seconds": 1.0}))
        assert client.call(Policy, "Reload") is None
    asked = {"kind": "migrate", "pid": 7, "target": "1", "rate": 5.0}
    assert server.requests == [
        {"method": "io.zoned.Reset"},
        {"method": "io.zoned.Memory.Survey", "parameters": asked},
        {"method": "io.zoned.Policy.Reload"},
    ]


JOB: dict[str, Any] = {
    "id": 7,
    "kind": "attach",
    "what": "attach pid 5 to zone db",
    "state": "running",
    "phase": "moving",
    "total": 9,
    "done": 5,
    "left": 4,
    "left_behind": 0,
    "rate": 2.5,
    "eta": None,
    "outcomes": {"moved": 5},
    "processes": 1,
    "gone": 0,
    "longest_call": 0.5,
    "foreign": None,
    "notes": [],
    "created": 1.0,
    "started": 2.0,
    "ended": None,
    "error": None,
}


def told(state: str, *, continues: bool = True) -> bytes:
    message: dict[str, Any] = {"parameters": {"job": JOB | {"state": state}}}
    if continues:
        message["continues"] = True
    return json.dumps(message).encode() + b"\0"


def test_a_stream_is_what_was_told_in_order(serve: Callable[..., FakeServer]) -> None:
    server = serve(
        told("queued") + told("running") + told("done", continues=False),
        reply(zones=[]),
        told("done", continues=False),
    )
    with Client(server.path) as client:
        found = list(client.stream(Jobs, "Watch", id=7))
        assert [job.state for job in found] == ["queued", "running", "done"]
        assert found[1] == JobInfo(**JOB)
        assert client.call(Zones, "List") == []
        assert len(list(client.stream(Jobs, "Watch", id=8))) == 1
    assert server.requests[0] == {
        "method": "io.zoned.Jobs.Watch",
        "parameters": {"id": 7},
        "more": True,
    }


def test_an_error_ends_a_stream_and_the_connection_goes_on(
    serve: Callable[..., FakeServer],
) -> None:
    failed = error("io.zoned.Failed", code="no-such-job", message="no job", hint="none")
    with Client(serve(told("running") + failed, reply(zones=[])).path) as client:
        stream = client.stream(Jobs, "Watch", id=7)
        assert next(stream).state == "running"
        with pytest.raises(NoSuchJob):
            next(stream)
        assert client.call(Zones, "List") == []


def test_a_daemon_that_stops_breaks_a_stream(serve: Callable[..., FakeServer]) -> None:
    server = serve(told("running"), None)
    with Client(server.path) as client:
        stream = client.stream(Jobs, "Watch", id=7)
        assert next(stream).state == "running"
        server.hang_up()
        with pytest.raises(NoDaemon):
            next(stream)
        with pytest.raises(NoDaemon):
            client.call(Zones, "List")
        with pytest.raises(NoDaemon):
            next(client.stream(Jobs, "Watch", id=7))


@pytest.mark.parametrize(
    "answer",
    [
        reply(job={"id": 7}),
        b"junk\0",
        error("org.varlink.service.ExpectedMore"),
        error("org.varlink.service.InvalidParameter", parameter="id"),
    ],
)
def test_a_stream_that_makes_no_sense(serve: Callable[..., FakeServer], answer: bytes) -> None:
    with Client(serve(told("running") + answer).path) as client:
        stream = client.stream(Jobs, "Watch", id=7)
        next(stream)
        with pytest.raises((Bug, NoDaemon)):
            next(stream)


def test_parameters_that_a_stream_does_not_have(serve: Callable[..., FakeServer]) -> None:
    with Client(serve().path) as client, pytest.raises(Bug):
        next(client.stream(Jobs, "Watch", number=7))


def test_a_stream_that_is_left_closes_the_connection(serve: Callable[..., FakeServer]) -> None:
    server = serve(told("running") + told("running"))
    with Client(server.path) as client:
        for job in client.stream(Jobs, "Watch", id=7):
            assert job.state == "running"
            break
        server.join(10)
        assert not server.is_alive()
        with pytest.raises(NoDaemon):
            client.call(Zones, "List")


def test_a_stream_that_outlives_its_client(serve: Callable[..., FakeServer]) -> None:
    with Client(serve(told("running")).path) as client:
        stream = client.stream(Jobs, "Watch", id=7)
        next(stream)
    del stream
    gc.collect()


def test_a_signal_while_a_stream_is_silent(serve: Callable[..., FakeServer]) -> None:
    server = serve(told("running"))
    with Client(server.path) as client:
        stream = client.stream(Jobs, "Watch", id=7)
        next(stream)
        now = client._loop.time

        def interrupt() -> float:
            # The loop asks for the time just before it waits.
            client._loop.time = now  # type: ignore[method-assign]
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return now()

        client._loop.time = interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        server.join(10)
        assert not server.is_alive()


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
