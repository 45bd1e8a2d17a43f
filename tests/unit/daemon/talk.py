# SPDX-License-Identifier: Apache-2.0
"""A server in the test's own loop, and raw clients that can send it anything."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from zoned.daemon.server import Server
from zoned.errors import NoSuchZone, by_code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from zoned.daemon.peer import Peer

LIMIT = 20.0


class FakeBackend:
    """Does what the tests need of zoned.api.interfaces.Backend."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.calls: list[str] = []

    async def reload(self) -> None:
        self.calls.append("reload")

    async def reset(self) -> list[str]:
        self.entered.set()
        await self.gate.wait()
        self.calls.append("reset")
        return ["done"]

    async def show(self, name: str) -> None:
        if name == "bug":
            raise KeyError(name)
        raise NoSuchZone(f"there is no zone {name!r}", hint="zones: none")

    async def list_zones(self) -> list[Any]:
        return []


class Talk:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> dict[str, Any]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\0"), LIMIT)
        found: dict[str, Any] = json.loads(raw[:-1])
        return found

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        await self.send(request(method, **parameters))
        return await self.reply()

    async def code(self) -> str:
        found = await self.reply()
        assert found["error"] == "io.zoned.Failed"
        assert found["parameters"]["code"] in by_code()
        return str(found["parameters"]["code"])

    async def ended(self) -> bool:
        """Return whether the server hangs up."""
        try:
            return await asyncio.wait_for(self.reader.read(), LIMIT) == b""
        except ConnectionResetError:
            return True


def request(method: str, **parameters: object) -> bytes:
    call = {"method": f"io.zoned.{method}", "parameters": parameters}
    return json.dumps(call).encode() + b"\0"


class Bench:
    """A server with its backend, and the clients of one test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.backend = FakeBackend()
        self.server = Server(path, self.backend_for)
        self.peers: list[Peer] = []
        self.talks: list[Talk] = []

    def backend_for(self, peer: Peer) -> Any:
        self.peers.append(peer)
        return self.backend

    async def talk(self) -> Talk:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=1 << 22)
        self.talks.append(Talk(reader, writer))
        return self.talks[-1]

    async def close(self) -> None:
        self.backend.gate.set()
        for talk in self.talks:
            talk.writer.close()
        await self.server.stop()


def run(tmp_path: Path, body: Callable[[Bench], Awaitable[None]]) -> None:
    """Run a test's body beside a server, and see that nothing of it is left."""

    async def all_of_it() -> None:
        bench = Bench(tmp_path / "socket")
        bench.server.start()
        try:
            await asyncio.wait_for(body(bench), 3 * LIMIT)
        finally:
            await bench.close()
        assert not bench.server._open
        assert not bench.path.exists()

    asyncio.run(all_of_it())
