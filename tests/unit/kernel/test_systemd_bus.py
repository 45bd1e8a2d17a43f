# SPDX-License-Identifier: Apache-2.0
"""Talking to systemd over a connection that answers as it is told."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from jeepney import HeaderFields  # type: ignore[import-untyped]

from zoned.errors import ServiceManager, TryLater
from zoned.kernel import systemd_bus
from zoned.kernel.systemd_bus import (
    NO_SUCH_UNIT,
    UNIT_EXISTS,
    Refusal,
    SystemdBus,
    UnitStatus,
    refusal_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Answer = tuple[object, ...] | Exception


class FakeConnection:
    """Answers calls in order, an exception being raised; and tells how jobs ended."""

    def __init__(self, answers: Sequence[Answer], results: Sequence[str | Exception] = ()) -> None:
        self.answers = deque(answers)
        self.results = deque(results)
        self.asked: list[tuple[str, Any]] = []
        self.listening = False
        self.closed = False

    def ask(self, message: Any, seconds: float) -> tuple[object, ...]:
        assert seconds > 0
        self.asked.append((message.header.fields[HeaderFields.member], message.body))
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def listen(self) -> None:
        self.listening = True

    def listen_no_more(self) -> None:
        self.listening = False

    def job_result(self, job: str, seconds: float) -> str:
        assert (job, self.listening) == ("/job/1", True)
        assert seconds > 0
        result = self.results.popleft()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self.closed = True


def bus(*connections: FakeConnection) -> SystemdBus:
    waiting = deque(connections)
    return SystemdBus(lambda: waiting.popleft())  # type: ignore[arg-type,return-value]


JOB = ("/job/1",)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd_bus, "_RETRY_PAUSE", 0.0)


def test_a_job_is_waited_for() -> None:
    connection = FakeConnection([JOB, JOB], ["done", "done"])
    manager = bus(connection)

    manager.start_transient_unit("zone-db.slice", [("MemoryMax", ("t", 7))])
    manager.stop_unit("zone-db.slice")

    assert connection.asked == [
        ("StartTransientUnit", ("zone-db.slice", "fail", [("MemoryMax", ("t", 7))], [])),
        ("StopUnit", ("zone-db.slice", "fail")),
    ]
    assert not connection.listening


def test_a_job_that_fails() -> None:
    manager = bus(FakeConnection([JOB], ["failed"]))

    with pytest.raises(ServiceManager, match=r"StartUnit a\.slice: the job ended with 'failed'"):
        manager.start_unit("a.slice")


@pytest.mark.parametrize("end", [TimeoutError(), ConnectionResetError()])
def test_a_job_whose_end_is_not_heard(end: Exception) -> None:
    first = FakeConnection([JOB], [end])
    manager = bus(first, FakeConnection([JOB], ["done"]))

    with pytest.raises(TryLater):
        manager.start_unit("a.slice")

    assert first.closed
    manager.start_unit("a.slice")


def test_a_refusal_has_its_name() -> None:
    manager = bus(FakeConnection([Refusal(UNIT_EXISTS, "Unit exists already.")]))

    with pytest.raises(ServiceManager, match=r"Unit exists already\.") as caught:
        manager.start_transient_unit("a.slice", [])

    assert refusal_name(caught.value) == UNIT_EXISTS
    assert refusal_name(ServiceManager("other")) == ""


def test_a_bus_that_went_away_is_joined_again() -> None:
    first = FakeConnection([(), BrokenPipeError()])
    second = FakeConnection([()])
    manager = bus(first, second)

    manager.reload()
    manager.reload()

    assert first.closed
    assert second.asked == [("Reload", ())]


def test_a_manager_that_executes_itself_anew_is_waited_for() -> None:
    away = Refusal("org.freedesktop.DBus.Error.NoReply", "disconnected")
    connection = FakeConnection([away, away, ()])

    bus(connection).reload()

    assert len(connection.asked) == 3


def test_no_bus_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd_bus, "_AWAY_SECONDS", 0.0)

    def connect() -> FakeConnection:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(ServiceManager, match="no connection to the system bus"):
        SystemdBus(connect).reload()  # type: ignore[arg-type]


def test_no_answer() -> None:
    connection = FakeConnection([TimeoutError()])

    with pytest.raises(TryLater, match="did not answer Reload"):
        bus(connection).reload()
    assert connection.closed


def test_properties() -> None:
    missing = Refusal(NO_SUCH_UNIT, "Unit a.slice not loaded.")
    other = Refusal("org.freedesktop.DBus.Error.AccessDenied", "no")
    connection = FakeConnection([("/unit/a",), (("s", "active"),), missing, other])
    manager = bus(connection)

    assert manager.unit_property("a.slice", "Unit", "ActiveState") == "active"
    assert connection.asked[-1] == ("Get", ("org.freedesktop.systemd1.Unit", "ActiveState"))
    assert manager.unit_property("a.slice", "Unit", "ActiveState") is None
    with pytest.raises(ServiceManager, match="no"):
        manager.unit_property("a.slice", "Unit", "ActiveState")


def test_the_rest_of_the_manager() -> None:
    row = ("a.service", "words", "loaded", "active", "running", "", "/u", 0, "", "/")
    connection = FakeConnection([(), (), ([row],)])
    manager = bus(connection)

    manager.set_unit_properties("a.slice", [("MemoryMin", ("t", 1))])
    manager.attach_processes("a.service", "/x", [1, 2])
    assert manager.list_units(["a*"]) == (UnitStatus("a.service", "loaded", "active"),)

    assert connection.asked[0] == (
        "SetUnitProperties",
        ("a.slice", True, [("MemoryMin", ("t", 1))]),
    )
    assert connection.asked[1] == ("AttachProcessesToUnit", ("a.service", "/x", [1, 2]))
