# SPDX-License-Identifier: Apache-2.0
"""The daemon's life in one process: start, events, signals, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import click
import pytest

from tests.unit.fakes import GIB, World, make_world
from zoned.api.client import Client
from zoned.api.interfaces import Policy, Service, Zones
from zoned.daemon import main as main_module
from zoned.daemon import service as service_module
from zoned.daemon.service import Options
from zoned.errors import PolicyError, StateDamaged, TryLater, Unsupported, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 20.0


class FakeMonitor:
    """Events over a real pipe, so that the loop waits for them as it does for netlink."""

    made: FakeMonitor | None = None

    def __init__(self, subsystems: tuple[str, ...]) -> None:
        assert subsystems == ("memory", "node")
        self._read, self._write = os.pipe()
        type(self).made = self

    def fileno(self) -> int:
        return self._read

    def drain(self) -> list[str]:
        return os.read(self._read, 4096).decode().splitlines()

    def send(self, event: str) -> None:
        os.write(self._write, f"{event}\n".encode())

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Bench:
    """A daemon in this process; the test's body runs in a thread beside it."""

    def __init__(self, world: World, notified: socket.socket) -> None:
        self.world = world
        self.socket = world.folder / "socket"
        self.notified = notified
        self.folder = world.folder / "config"
        (self.folder / "zones.d").mkdir(parents=True)

    @property
    def options(self) -> Options:
        return Options(
            config=self.folder,
            socket=self.socket,
            state=self.world.folder / "state",
            sysroot=self.world.folder,
            group="zone",
        )

    def told(self, line: str) -> str:
        """Wait until the service manager is told a line; return the whole message."""
        while True:
            text = self.notified.recv(4096).decode()
            if line in text.splitlines():
                return text

    def write_policy(self, text: str) -> None:
        (self.folder / "zones.d/10-test.yaml").write_text(text)

    def run(self, body: Callable[[], None]) -> None:
        """Run the daemon until the body is done."""
        problems: list[BaseException] = []

        def beside() -> None:
            try:
                self.told("READY=1")
                body()
            except BaseException as error:
                problems.append(error)
            finally:
                # Where the daemon ended by itself the signal would end the tests.
                if not over.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)

        thread, over = threading.Thread(target=beside), threading.Event()
        thread.start()
        try:
            asyncio.run(service_module.Service(self.options).run())
        finally:
            over.set()
            thread.join()
        if problems:
            raise problems[0]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    world = make_world(tmp_path)
    monkeypatch.setattr(service_module, "EventMonitor", FakeMonitor)
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


def test_it_serves_and_stops_and_leaves_zones(bench: Bench) -> None:
    def body() -> None:
        with Client(bench.socket) as client:
            client.call(Zones, "Create", name="db", size=GIB)
            assert client.call(Service, "Status").zones == 1

    bench.run(body)
    assert "db" in bench.world.groups.made
    assert not bench.socket.exists()
    assert bench.told("STOPPING=1")
    bench.run(lambda: None)
    assert "db" in bench.world.groups.made


def test_an_event_has_the_machine_looked_at(bench: Bench) -> None:
    looked = threading.Event()

    def body() -> None:
        bench.world.groups.there = True
        bench.world.groups.parent_protection = look  # type: ignore[method-assign]
        assert FakeMonitor.made is not None
        FakeMonitor.made.send("add memory42")
        assert looked.wait(LIMIT)

    def look() -> int:
        looked.set()
        return 0

    bench.run(body)


def test_without_events_it_looks_from_time_to_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: tuple[str, ...]) -> None:
        raise Unsupported("no netlink")

    monkeypatch.setattr(service_module, "EventMonitor", refuse)
    monkeypatch.setattr(service_module, "RESYNC", 0.01)
    looks = threading.Semaphore(0)

    def body() -> None:
        bench.world.groups.parent_protection = look  # type: ignore[method-assign]
        for _ in range(3):
            assert looks.acquire(timeout=LIMIT)

    def look() -> int:
        looks.release()
        return 0

    bench.run(body)
    assert "no netlink" in caplog.text


def test_a_look_that_fails_does_not_end_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
        bench.world.groups.parent_protection = look  # type: ignore[method-assign]
        assert fine.wait(LIMIT)
        assert "[try-later] not now" in caplog.text
        assert "ValueError: a defect" in caplog.text

    bench.run(body)


def test_hangup_reloads_and_tells_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def body() -> None:
        bench.write_policy("zones:\n  web:\n    size: 1GiB\n")
        os.kill(os.getpid(), signal.SIGHUP)
        assert "MONOTONIC_USEC=" in bench.told("RELOADING=1")
        assert "STATUS=1 zones" in bench.told("READY=1")
        assert "web" in bench.world.groups.made
        bench.write_policy("zones: 5\n")
        os.kill(os.getpid(), signal.SIGHUP)
        bench.told("RELOADING=1")
        bench.told("READY=1")
        assert "10-test.yaml" in caplog.text
        with Client(bench.socket) as client, pytest.raises(PolicyError, match=r"10-test\.yaml:1"):
            client.call(Policy, "Reload")
        assert "web" in bench.world.groups.made

    bench.run(body)


def test_the_watchdog_is_fed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")

    def body() -> None:
        for _ in range(3):
            bench.told("WATCHDOG=1")

    bench.run(body)


def test_a_second_daemon_on_the_same_state_is_refused(bench: Bench) -> None:
    def body() -> None:
        with pytest.raises(TryLater, match="another zoned"):
            asyncio.run(service_module.Service(bench.options).run())
        with Client(bench.socket) as client:
            assert client.call(Zones, "List") == []

    bench.run(body)


def test_a_damaged_state_is_told_and_the_lock_is_free_again(bench: Bench) -> None:
    store = bench.world.folder / "state/zones.json"
    store.parent.mkdir()
    store.write_text("junk")
    for _ in range(2):
        with pytest.raises(StateDamaged, match=r"zones\.json"):
            asyncio.run(service_module.Service(bench.options).run())


def test_a_recorded_machine_has_no_place_for_groups(tmp_path: Path) -> None:
    options = Options(
        config=None, socket=tmp_path / "s", state=tmp_path, sysroot=tmp_path, group="zone"
    )
    with pytest.raises(Unsupported):
        service_module.build_machine(options)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TryLater("another zoned works here"), 75),
        (StateDamaged("cannot read it"), 1),
        (click.UsageError("what?"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_every_failure_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main_module, "cli", fail)
    monkeypatch.setattr(main_module, "setup_logging", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main_module.main()
    assert ended.value.code == status
    if isinstance(error, ZonedError):
        assert f"[{error.code}] {error}" in caplog.text
    if isinstance(error, click.UsageError):
        assert "what?" in capsys.readouterr().err


def test_the_command_hands_its_options_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Options] = []

    class FakeService:
        def __init__(self, options: Options) -> None:
            seen.append(options)

        async def run(self) -> None:
            return

    monkeypatch.setattr(service_module, "Service", FakeService)
    arguments = ["run", "--config", "/c", "--socket", "/s", "--state", "/t", "--group", "g"]
    main_module.cli([*arguments, "--sysroot", str(tmp_path)], standalone_mode=False)
    assert (str(seen[0].config), str(seen[0].state), seen[0].group) == ("/c", "/t", "g")
    assert seen[0].sysroot == tmp_path


def test_without_root_it_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(click.ClickException, match="needs root"):
        main_module.cli(["run"], standalone_mode=False)
