# SPDX-License-Identifier: Apache-2.0
"""Device events: lost ones count as one, and what cannot be had is said."""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import pyudev

from zoned.errors import Unsupported
from zoned.kernel import udev
from zoned.kernel.udev import OVERFLOW, DeviceEvent, EventMonitor, take_error

if TYPE_CHECKING:
    from collections.abc import Iterable


class FakeMonitor:
    """Stands in for pyudev's: gives out what it is told to, errors included."""

    def __init__(self, answers: Iterable[object]) -> None:
        self._answers = deque(answers)
        self.subsystems: list[str] = []
        self.started = False
        self.small = False

    def filter_by(self, subsystem: str) -> None:
        self.subsystems.append(subsystem)

    def set_receive_buffer_size(self, size: int) -> None:
        del size
        if self.small:
            raise OSError(errno.EPERM, "Operation not permitted")

    def start(self) -> None:
        self.started = True

    def fileno(self) -> int:
        return 7

    def poll(self, timeout: float) -> object:
        assert timeout == 0
        answer = self._answers.popleft() if self._answers else None
        if isinstance(answer, OSError):
            raise answer
        return answer


def event(action: str, name: str, subsystem: str = "memory") -> SimpleNamespace:
    return SimpleNamespace(action=action, sys_name=name, subsystem=subsystem)


def listen(monkeypatch: pytest.MonkeyPatch, fake: FakeMonitor) -> EventMonitor:
    def from_netlink(context: Any, source: str) -> FakeMonitor:
        del context
        assert source == "kernel"
        return fake

    monkeypatch.setattr(pyudev, "Context", object)
    monkeypatch.setattr(pyudev.Monitor, "from_netlink", from_netlink)
    return EventMonitor(("memory", "node"))


def test_lost_events_count_as_one_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = OSError(errno.ENOBUFS, "No buffer space available")
    fake = FakeMonitor([event("online", "memory40"), lost, event("add", "node4")])
    monitor = listen(monkeypatch, fake)
    first, second, third = monitor.drain()
    assert [str(first), str(second), str(third)] == ["online memory40", "overflow", "add node4"]
    assert second is OVERFLOW
    assert monitor.drain() == []
    assert fake.subsystems == ["memory", "node"]
    assert fake.started
    assert monitor.fileno() == 7


def test_lost_events_that_pyudev_sees_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udev, "take_error", {7: errno.ENOBUFS}.get)
    unnamed = OSError("Error while polling fd: 7")
    fake = FakeMonitor([event("online", "memory40"), unnamed, event("add", "node4")])
    _, lost, _ = listen(monkeypatch, fake).drain()
    assert lost is OVERFLOW


def test_another_error_of_the_socket_is_not_taken_for_lost_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(udev, "take_error", lambda _: errno.EIO)
    with pytest.raises(OSError, match="Error while polling"):
        listen(monkeypatch, FakeMonitor([OSError("Error while polling fd: 7")])).drain()


def test_an_error_of_a_socket_is_taken_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    with socket.socket() as caller:
        caller.settimeout(0)
        caller.connect_ex(nobody)
        select.select([], [caller], [])
        assert take_error(caller.fileno()) == errno.ECONNREFUSED
        assert take_error(caller.fileno()) == 0


def test_a_buffer_that_may_not_grow_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMonitor([event("offline", "memory40")])
    fake.small = True
    (found,) = listen(monkeypatch, fake).drain()
    assert found == DeviceEvent(action="offline", subsystem="memory", name="memory40")


def test_devices_keep_their_subsystem(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMonitor([event("bind", "0000:01:00.0", "pci")])
    (found,) = listen(monkeypatch, fake).drain()
    assert (found.subsystem, str(found)) == ("pci", "bind 0000:01:00.0")


def test_any_other_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMonitor([OSError(errno.EBADF, "Bad file descriptor")])
    with pytest.raises(OSError, match="Bad file"):
        listen(monkeypatch, fake).drain()


def test_no_netlink_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(context: Any, source: str) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(pyudev.Monitor, "from_netlink", refuse)
    with pytest.raises(Unsupported, match="device events"):
        EventMonitor(("memory",))
