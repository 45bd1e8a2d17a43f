# SPDX-License-Identifier: Apache-2.0
"""The client against servers that answer, hang up and talk nonsense."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from types import NoneType
from typing import TYPE_CHECKING, Any

import pytest

from zoned.api.client import Client
from zoned.api.types import JobInfo, RoomInfo, SurveyInfo, ZoneDetail, ZoneInfo, ZoneRequest
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
        assert client.call("Reset", list[str]) == ["db: no"]
        asked = {"kind": "migrate", "pid": 7, "target": "1", "rate": 5.0}
        found = client.call("Memory.Survey", SurveyInfo, **asked)
        room = RoomInfo(node=1, free=9, reclaimable=0, promised=0, pool=0, room=9)
        assert found == SurveyInfo(**(SURVEY | {"rooms": [room], "seconds": 1.0}))
        assert client.call("Policy.Reload", NoneType) is None
    assert server.requests == [
        {"method": "io.zoned.Reset"},
        {"method": "io.zoned.Memory.Survey", "parameters": asked},
        {"method": "io.zoned.Policy.Reload"},
    ]


def test_parameters_may_be_dataclasses(serve: Callable[..., FakeServer]) -> None:
    server = serve(reply(job=JOB))
    wanted = ZoneRequest(name="db", size=5, users=["jo", "\udcff"])
    with Client(server.path) as client:
        assert client.call("Zones.StartCreate", JobInfo, zone=wanted) == JobInfo(**JOB)
    (sent,) = server.requests
    assert sent["parameters"] == {"zone": dataclasses.asdict(wanted)}


def test_an_answer_in_pieces(serve: Callable[..., FakeServer]) -> None:
    left = ["ä" * 200_000, "b"]
    with Client(serve(reply(left=left)).path) as client:
        assert client.call("Reset", list[str]) == left


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
        found = list(client.stream("Jobs.Watch", JobInfo, id=7))
        assert [job.state for job in found] == ["queued", "running", "done"]
        assert found[1] == JobInfo(**JOB)
        assert client.call("Zones.List", list[ZoneInfo]) == []
        assert len(list(client.stream("Jobs.Watch", JobInfo, id=8))) == 1
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
        stream = client.stream("Jobs.Watch", JobInfo, id=7)
        assert next(stream).state == "running"
        with pytest.raises(NoSuchJob):
            next(stream)
        assert client.call("Zones.List", list[ZoneInfo]) == []


def test_a_daemon_that_stops_breaks_a_stream(serve: Callable[..., FakeServer]) -> None:
    server = serve(told("running"), None)
    with Client(server.path) as client:
        stream = client.stream("Jobs.Watch", JobInfo, id=7)
        assert next(stream).state == "running"
        server.hang_up()
        with pytest.raises(NoDaemon):
            next(stream)
        with pytest.raises(NoDaemon):
            client.call("Zones.List", list[ZoneInfo])
        with pytest.raises(NoDaemon):
            next(client.stream("Jobs.Watch", JobInfo, id=7))


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
        stream = client.stream("Jobs.Watch", JobInfo, id=7)
        next(stream)
        with pytest.raises((Bug, NoDaemon)):
            next(stream)


def test_a_stream_that_is_left_closes_the_connection(serve: Callable[..., FakeServer]) -> None:
    server = serve(told("running") + told("running"))
    with Client(server.path) as client:
        for job in client.stream("Jobs.Watch", JobInfo, id=7):
            assert job.state == "running"
            break
        server.join(10)
        assert not server.is_alive()
        with pytest.raises(NoDaemon):
            client.call("Zones.List", list[ZoneInfo])


def test_a_stream_that_outlives_its_client(serve: Callable[..., FakeServer]) -> None:
    with Client(serve(told("running")).path) as client:
        stream = client.stream("Jobs.Watch", JobInfo, id=7)
        next(stream)
    with pytest.raises(NoDaemon):
        next(stream)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Press Ctrl-C again and again until it is noticed: the first may come before the waiting."""
    noticed = threading.Event()

    def caught(*_: object) -> None:
        if not noticed.is_set():
            noticed.set()
            raise KeyboardInterrupt

    def press() -> None:
        while not noticed.wait(0.01):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, caught)
    presses = threading.Thread(target=press)
    presses.start()
    try:
        yield
    finally:
        noticed.set()
        presses.join()
        signal.signal(signal.SIGINT, before)


def test_a_signal_while_an_answer_is_awaited(serve: Callable[..., FakeServer]) -> None:
    server = serve(b"")
    with Client(server.path) as client:
        with interrupting(), pytest.raises(KeyboardInterrupt):
            client.call("Zones.List", list[ZoneInfo])
        # What it would still say is no answer to another question.
        with pytest.raises(NoDaemon):
            client.call("Zones.List", list[ZoneInfo])
        server.join(10)
        assert not server.is_alive()


def test_a_signal_while_a_stream_is_silent(serve: Callable[..., FakeServer]) -> None:
    server = serve(told("running"))
    with Client(server.path) as client:
        stream = client.stream("Jobs.Watch", JobInfo, id=7)
        next(stream)
        with interrupting(), pytest.raises(KeyboardInterrupt):
            next(stream)
        server.join(10)
        assert not server.is_alive()
        with pytest.raises(NoDaemon):
            client.call("Zones.List", list[ZoneInfo])


def test_an_error_comes_back_as_its_class(serve: Callable[..., FakeServer]) -> None:
    failed = error("io.zoned.Failed", code="no-such-zone", message="no zone", hint="none")
    odd = error("io.zoned.Failed", code="from-the-future", message="what", hint="")
    with Client(serve(failed, odd).path) as client:
        with pytest.raises(NoSuchZone) as raised:
            client.call("Zones.Show", ZoneDetail, name="x")
        assert (raised.value.message, raised.value.hint) == ("no zone", "none")
        with pytest.raises(ZonedError, match="what") as unknown:
            client.call("Zones.Show", ZoneDetail, name="x")
        assert type(unknown.value) is ZonedError


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error("org.varlink.service.MethodNotFound", method="Show"), "MethodNotFound: .*Show"),
        (error("org.varlink.service.ExpectedMore"), "org.varlink.service.ExpectedMore$"),
        (error("io.zoned.Failed", colour="red"), "io.zoned.Failed: .*red"),
        (error("io.zoned.Failed", code="usage", message="x", hint=5), "io.zoned.Failed"),
        (reply(zone={"name": "db"}), r"no zone\.size$"),
        (reply(zone=5), "int as zone, not ZoneDetail$"),
        (reply(zone=5, more=6), "2 results, not one$"),
        (reply(), "NoneType as the result, not ZoneDetail$"),
        (b"junk\0", "Expecting value"),
        (b"\xff\xfe\0", "can't decode"),
        (b"[]\0", "no reply"),
        (b'{"parameters": 5}\0', "no reply"),
        (b'{"continues": 1}\0', "no reply"),
        (b'{"error": 1}\0', "no reply"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_bug(
    serve: Callable[..., FakeServer], answer: bytes, said: str
) -> None:
    with Client(serve(answer).path) as client, pytest.raises(Bug) as raised:
        client.call("Zones.Show", ZoneDetail, name="x")
    assert re.match(f"the daemon answered .*{said}", raised.value.message)
    assert raised.value.hint


def test_more_answers_than_were_asked_for(serve: Callable[..., FakeServer]) -> None:
    with Client(serve(told("running"), reply(zones=[])).path) as client:
        assert client.call("Jobs.Show", JobInfo, id=7).state == "running"
        with pytest.raises(NoDaemon):
            client.call("Zones.List", list[ZoneInfo])


def test_a_daemon_that_hangs_up(serve: Callable[..., FakeServer]) -> None:
    with Client(serve(None).path) as client:
        with pytest.raises(NoDaemon, match="before it answered") as raised:
            client.call("Reset", list[str])
        assert raised.value.exit_status == 3
        with pytest.raises(NoDaemon):
            client.call("Reset", list[str])
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
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zoned.api.client._connected", refuse)
    with pytest.raises(Denied) as raised:
        Client(tmp_path / "socket")
    assert raised.value.exit_status == 4


def test_it_is_quickly_loaded() -> None:
    script = (
        "import sys, zoned.cli.main, zoned.cli.zone_list, zoned.api.client; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    slow = {"asyncio", "asyncvarlink", "ssl", "rich", "numpy", "zoned.api.interfaces"}
    assert slow.isdisjoint(loaded)
    assert {"zoned.api.types", "zoned.cli.follow", "zoned.model.zone"}.isdisjoint(loaded)
