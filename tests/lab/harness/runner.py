# SPDX-License-Identifier: Apache-2.0
"""Commands in the guest through a program of the lab's own: guest_programs/runner.py.

It is there once zoned is installed. Its zonectl is loaded already, which spares an emulated machine
most of what a command costs.
"""

import asyncio
import base64
import contextlib
import json
import socket
from typing import Any

from tests.lab.harness.agent import Finished
from tests.lab.harness.errors import LabError, LabLost

_ANSWER_SECONDS = 90
_LONGEST_LINE = 64 << 20
_MOST_OUTPUT = 16 << 20
_GONE = "the guest's runner went away"


class Runner:
    """The guest's side of the port. All methods raise LabLost when it does not answer."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ends: dict[int, asyncio.Future[Finished]] = {}
        self._pids: dict[int, int] = {}
        self._asked = 0

    async def connect(self, patience: float) -> None:
        """Wait until the program in the guest is ready, at most `patience` seconds.

        Again after a reboot: what the one before was asked has no end then.
        """
        ready = self._answers[0] = asyncio.get_running_loop().create_future()
        if self._writer is None:
            reader, self._writer = await asyncio.open_connection(
                sock=self._channel, limit=_LONGEST_LINE
            )
            self._listener = asyncio.create_task(self._listen(reader))
        await self._answer(ready, "starting", patience)

    async def start(
        self, argv: list[str], env: dict[str, str], stdin: bytes, user: str | None, cwd: str | None
    ) -> int:
        """Start a command with exactly the environment `env`; return its process id."""
        text = base64.b64encode(stdin).decode()
        answer = await self._ask(argv=argv, env=env, stdin=text, user=user, cwd=cwd)
        return int(answer["pid"])

    async def wait(self, pid: int) -> Finished:
        """Wait for the end of a command, and of all that hold its output open."""
        finished = await asyncio.shield(self._ends[pid])
        del self._ends[pid]
        return finished

    async def read(self, path: str) -> str:
        """Return the text of a file. Raises LabError where it cannot be read."""
        answer = await self._ask(read=path)
        if "error" in answer:
            raise LabError(answer["error"])
        return base64.b64decode(answer["out"]).decode(errors="replace")

    async def exists(self, path: str) -> bool:
        """Tell whether there is such a path."""
        return bool((await self._ask(exists=path))["exists"])

    async def close(self) -> None:
        """Hang up."""
        if self._listener is not None:
            self._listener.cancel()
        if self._writer is not None:
            self._writer.close()
        else:
            self._channel.close()

    async def _ask(self, **said: Any) -> dict[str, Any]:
        self._asked += 1
        number = self._asked
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        if self._writer is None or self._listener is None or self._listener.done():
            raise LabLost(_GONE)
        self._writer.write(json.dumps({"id": number, **said}).encode() + b"\n")
        return await self._answer(answer, str(said), _ANSWER_SECONDS)

    async def _answer(
        self, answer: asyncio.Future[dict[str, Any]], what: str, patience: float
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            msg = f"the guest's runner has not answered for {patience:g} s: {what}"
            raise LabLost(msg) from None

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._hear(json.loads(line))
        left: list[asyncio.Future[Any]] = [*self._answers.values(), *self._ends.values()]
        for waiting in left:
            if not waiting.done():
                waiting.set_exception(LabLost(_GONE))

    def _hear(self, said: dict[str, Any]) -> None:
        number = int(said["id"])
        if "status" in said:
            self._finish(self._ends[self._pids.pop(number)], said)
            return
        if "pid" in said and number:
            self._pids[number] = pid = int(said["pid"])
            self._ends[pid] = asyncio.get_running_loop().create_future()
        self._answers.pop(number).set_result(said)

    def _finish(self, end: asyncio.Future[Finished], said: dict[str, Any]) -> None:
        out, err = (base64.b64decode(said[name]) for name in ("out", "err"))
        if max(len(out), len(err)) > _MOST_OUTPUT:
            msg = "the command wrote more than the 16 MB that a command may"
            end.set_exception(LabError(msg))
            return
        end.set_result(Finished(returncode=int(said["status"]), stdout=out, stderr=err))
