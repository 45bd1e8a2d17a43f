# SPDX-License-Identifier: Apache-2.0
"""A whole daemon in the test's process, on a fake machine."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING

from zoned.daemon import service as service_module
from zoned.daemon.machine import Options
from zoned.kernel.udev import DeviceEvent

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.unit.fakes import World

LIMIT = 20.0


class FakeMonitor:
    """Events over a real pipe, so that the loop waits for them as it does for netlink."""

    made: FakeMonitor | None = None

    def __init__(self, subsystems: tuple[str, ...]) -> None:
        assert subsystems == ("memory", "node", "pci")
        self._read, self._write = os.pipe()
        type(self).made = self

    def fileno(self) -> int:
        return self._read

    def drain(self) -> list[DeviceEvent]:
        lines = os.read(self._read, 4096).decode().splitlines()
        found = []
        for line in lines:
            action, _, name = line.partition(" ")
            subsystem = "pci" if ":" in name else name.rstrip("0123456789")
            found.append(DeviceEvent(action=action, subsystem=subsystem, name=name))
        return found

    def send(self, event: str) -> None:
        """Have something happen: "add memory42", "bind 0000:01:00.0" or "overflow"."""
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
        self._over = self._ended = False
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

    def end(self) -> None:
        """Tell the daemon to stop, once: where it has ended the signal would end the tests."""
        if not (self._over or self._ended):
            self._ended = True
            os.kill(os.getpid(), signal.SIGTERM)

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
                self.end()

        self._over = self._ended = False
        thread = threading.Thread(target=beside)
        thread.start()
        try:
            asyncio.run(service_module.Service(self.options).run())
        finally:
            self._over = True
            thread.join()
        if problems:
            raise problems[0]
