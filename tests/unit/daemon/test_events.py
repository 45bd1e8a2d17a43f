# SPDX-License-Identifier: Apache-2.0
"""Which events have what looked at."""

from __future__ import annotations

import contextlib
import logging
import threading
from types import NoneType
from typing import TYPE_CHECKING

import pytest

from tests.unit.daemon.whole import LIMIT, Bench, FakeMonitor
from zoned.api.client import Client
from zoned.engine.engine import Engine
from zoned.errors import TryLater

if TYPE_CHECKING:
    from collections.abc import Callable

EDU = "0000:01:00.0"


class Looks:
    """Counts looks of the engine, at all or at devices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._changed = threading.Condition()
        self.seen: list[str] = []
        self.failures: list[Exception] = []
        monkeypatch.setattr(Engine, "tick", lambda _: self._look("all"))
        monkeypatch.setattr(Engine, "dma_look", lambda _: self._look("devices"))

    def _look(self, what: str) -> None:
        with self._changed:
            self.seen.append(what)
            self._changed.notify_all()
        if self.failures:
            raise self.failures.pop()

    def wait_for(self, enough: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(enough, LIMIT), self.seen


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Looks:
    caplog.set_level(logging.INFO)
    return Looks(monkeypatch)


def run(whole: Bench, looks: Looks, body: Callable[[], None]) -> None:
    """Run the daemon, and the body once it has looked for the first time."""

    def beside() -> None:
        looks.wait_for(lambda: {"all", "devices"} <= set(looks.seen))
        looks.seen.clear()
        body()

    whole.run(beside)


def send(event: str) -> None:
    assert FakeMonitor.made is not None
    FakeMonitor.made.send(event)


@pytest.mark.parametrize("action", ["add", "bind", "unbind", "remove"])
def test_devices_that_come_and_go_are_looked_at_alone(
    whole: Bench, looks: Looks, caplog: pytest.LogCaptureFixture, action: str
) -> None:
    def body() -> None:
        send(f"{action} {EDU}")
        looks.wait_for(lambda: "devices" in looks.seen)
        assert "all" not in looks.seen

    run(whole, looks, body)
    assert f"event: {action} {EDU}" in caplog.messages


def test_what_else_happens_to_devices_is_no_reason(
    whole: Bench, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        send(f"change {EDU}")
        send("online memory40")
        looks.wait_for(lambda: "all" in looks.seen)
        assert "devices" not in looks.seen

    run(whole, looks, body)
    assert "event: online memory40" in caplog.messages
    assert f"event: change {EDU}" not in caplog.messages


def test_lost_events_have_everything_looked_at(
    whole: Bench, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        send("overflow")
        looks.wait_for(lambda: {"all", "devices"} <= set(looks.seen))

    run(whole, looks, body)
    assert "event: overflow" in caplog.messages


def test_a_look_at_devices_that_fails_does_not_end_it(
    whole: Bench, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        for failure in (TryLater("not now"), ValueError("a defect")):
            looks.seen.clear()
            looks.failures.append(failure)
            send(f"add {EDU}")
            looks.wait_for(lambda: "devices" in looks.seen)
        looks.seen.clear()
        send(f"add {EDU}")
        looks.wait_for(lambda: "devices" in looks.seen)

    run(whole, looks, body)
    assert "[try-later] not now" in caplog.text
    assert "ValueError: a defect" in caplog.text


def test_the_rule_of_udev_is_told_what_the_policy_wants(whole: Bench, looks: Looks) -> None:
    folder = whole.world.folder / "state/dma-wanted"

    def names() -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return {each.name for each in folder.iterdir()}
        return set()

    def body() -> None:
        for identity, mark in (("1234:11e8", "0x1234:0x11e8"), ("1028:*", "0x1028")):
            match = f"{{id: '{identity}'}}"
            whole.write_policy(
                f"dma:\n  reservations:\n    teach: {{match: {match}, size: 1MiB}}\n"
            )
            reload()
            looks.wait_for(lambda mark=mark: names() == {mark})  # type: ignore[misc]
        whole.write_policy("")
        reload()
        looks.wait_for(lambda: not names())

    def reload() -> None:
        with Client(whole.socket) as client:
            client.call("Policy.Reload", NoneType)

    run(whole, looks, body)
