# SPDX-License-Identifier: Apache-2.0
"""What the daemon's tests share."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.unit.daemon.buffer_scene import Scene
from tests.unit.daemon.whole import LIMIT, Bench, FakeMonitor
from tests.unit.fakes import make_world
from zoned.daemon import buffers as buffers_module
from zoned.daemon import events as events_module
from zoned.daemon import service as service_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Return a daemon that can be run, stopped and run again."""
    world = make_world(tmp_path)
    monkeypatch.setattr(events_module, "EventMonitor", FakeMonitor)
    monkeypatch.setattr(service_module, "build_machine", lambda _: world.machine())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        yield Bench(world, notified)
    if FakeMonitor.made is not None:
        FakeMonitor.made.close()
        FakeMonitor.made = None


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return a daemon that lends buffers and soon looks whether they are back."""
    monkeypatch.setattr(buffers_module, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(buffers_module, "LAST_LOOK", 0.05)
    return Scene(make_world(tmp_path))
