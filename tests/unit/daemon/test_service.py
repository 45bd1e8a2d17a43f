# SPDX-License-Identifier: Apache-2.0
"""The daemon's life in one process: start, events, signals, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from types import NoneType
from typing import TYPE_CHECKING

import pytest

from tests.unit.daemon.whole import LIMIT, Bench, FakeMonitor
from tests.unit.fakes import GIB, started
from zoned.api.client import Client
from zoned.api.types import StatusInfo, ZoneDetail, ZoneInfo
from zoned.daemon import events as events_module
from zoned.daemon import service as service_module
from zoned.daemon.machine import Options, build_machine
from zoned.errors import PolicyError, StateDamaged, TryLater, Unsupported

if TYPE_CHECKING:
    from pathlib import Path


def test_it_serves_and_stops_and_leaves_zones(whole: Bench) -> None:
    def body() -> None:
        with Client(whole.socket) as client:
            client.call("Zones.Create", ZoneDetail, name="db", size=GIB)
            assert client.call("Status", StatusInfo).zones == 1

    whole.run(body)
    assert "db" in whole.world.groups.made
    assert not whole.socket.exists()
    assert whole.told("STOPPING=1")
    whole.run(lambda: None)
    assert "db" in whole.world.groups.made


def test_an_event_has_the_machine_looked_at(whole: Bench) -> None:
    looked = threading.Event()

    def body() -> None:
        whole.world.groups.there = True
        whole.world.groups.parent_protection = look  # type: ignore[method-assign]
        assert FakeMonitor.made is not None
        FakeMonitor.made.send("add memory42")
        assert looked.wait(LIMIT)

    def look() -> int:
        looked.set()
        return 0

    whole.run(body)


@pytest.mark.parametrize("turns", range(5))
def test_it_ends_though_an_event_comes_at_the_same_moment(
    whole: Bench, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    async def look(*_: object) -> None:
        pass

    async def run() -> None:
        service = service_module.Service(whole.options)
        monkeypatch.setattr(service, "_tick", look)
        keeper = asyncio.create_task(service._keep(started(whole.world)))
        await asyncio.sleep(0)
        service._dirty.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        keeper.cancel()
        done, _ = await asyncio.wait({keeper}, timeout=LIMIT)
        assert done

    asyncio.run(run())


def test_without_events_it_looks_from_time_to_time(
    whole: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: tuple[str, ...]) -> None:
        raise Unsupported("no netlink")

    monkeypatch.setattr(events_module, "EventMonitor", refuse)
    monkeypatch.setattr(service_module, "RESYNC", 0.01)
    looks = threading.Semaphore(0)

    def body() -> None:
        whole.world.groups.parent_protection = look  # type: ignore[method-assign]
        for _ in range(3):
            assert looks.acquire(timeout=LIMIT)

    def look() -> int:
        looks.release()
        return 0

    whole.run(body)
    assert "no netlink" in caplog.text


def test_a_look_that_fails_does_not_end_it(
    whole: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_module, "RESYNC", 0.01)
    errors = iter([TryLater("not now"), ValueError("a defect")])
    fine = threading.Event()

    def look() -> int:
        for error in errors:
            raise error
        fine.set()
        return 0

    def body() -> None:
        whole.world.groups.parent_protection = look  # type: ignore[method-assign]
        assert fine.wait(LIMIT)
        assert "[try-later] not now" in caplog.text
        assert "ValueError: a defect" in caplog.text

    whole.run(body)


def test_hangup_reloads_and_tells_so(whole: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def body() -> None:
        whole.write_policy("zones:\n  web:\n    size: 1GiB\n")
        os.kill(os.getpid(), signal.SIGHUP)
        assert "MONOTONIC_USEC=" in whole.told("RELOADING=1")
        assert "STATUS=1 zones" in whole.told("READY=1")
        assert "web" in whole.world.groups.made
        whole.write_policy("zones: 5\n")
        os.kill(os.getpid(), signal.SIGHUP)
        whole.told("RELOADING=1")
        whole.told("READY=1")
        assert "10-test.yaml" in caplog.text
        with Client(whole.socket) as client, pytest.raises(PolicyError, match=r"10-test\.yaml:1"):
            client.call("Policy.Reload", NoneType)
        assert "web" in whole.world.groups.made

    whole.run(body)


def test_the_watchdog_is_fed(whole: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")

    def body() -> None:
        for _ in range(3):
            whole.told("WATCHDOG=1")

    whole.run(body)


def test_a_second_daemon_on_the_same_state_is_refused(whole: Bench) -> None:
    def body() -> None:
        with pytest.raises(TryLater, match="another zoned"):
            asyncio.run(service_module.Service(whole.options).run())
        with Client(whole.socket) as client:
            assert client.call("Zones.List", list[ZoneInfo]) == []

    whole.run(body)


def test_a_damaged_state_is_told_and_the_lock_is_free_again(whole: Bench) -> None:
    store = whole.world.folder / "state/zones.json"
    store.parent.mkdir()
    store.write_text("junk")
    for _ in range(2):
        with pytest.raises(StateDamaged, match=r"zones\.json"):
            asyncio.run(service_module.Service(whole.options).run())


def test_a_recorded_machine_has_no_place_for_groups(tmp_path: Path) -> None:
    options = Options(
        config=None, socket=tmp_path / "s", state=tmp_path, sysroot=tmp_path, group="zone"
    )
    with pytest.raises(Unsupported):
        build_machine(options)
