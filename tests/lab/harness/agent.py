# SPDX-License-Identifier: Apache-2.0
"""Commands in the guest through qemu-guest-agent (qemu-ga-ref(7)).

The agent speaks QMP without greeting and negotiation. It captures up to 16 MB of output of a
command, knows its exit status or signal, and works on any number of commands at once. It sends
no news by itself, so that the end of a command is asked for.
"""

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

from qemu.qmp import ExecInterruptedError, QMPClient, QMPError, StateError

from tests.lab.harness.errors import LabError, LabLost

_ANSWER_SECONDS = 90
_LONGEST_LINE = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended: `returncode` is the exit status, or minus the signal's number."""

    returncode: int
    stdout: bytes
    stderr: bytes


def new_client() -> QMPClient:
    """Return a client that is ready to be connected to a guest agent."""
    client = QMPClient("agent", readbuflen=_LONGEST_LINE)
    client.await_greeting = False
    client.negotiate = False
    return client


class Agent:
    """The guest's side of the lab. All methods raise LabLost when it does not answer."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def call(self, command: str, *, patience: float = _ANSWER_SECONDS, **words: Any) -> Any:
        """Ask the agent for one thing; `patience` in seconds.

        An underscore in a word stands for the hyphen of the agent's own.
        """
        arguments = {name.replace("_", "-"): value for name, value in words.items()}
        try:
            request = self._client.execute(command, arguments or None)
            return await asyncio.wait_for(request, patience)
        except TimeoutError:
            msg = f"the guest has not answered {command} for {patience:g} s"
            raise LabLost(msg) from None
        except (ExecInterruptedError, StateError) as error:
            msg = f"the guest went away during {command}"
            raise LabLost(msg) from error
        except QMPError as error:
            msg = f"the guest agent refused {command}: {error}"
            raise LabError(msg) from error

    async def start(self, argv: list[str], env: dict[str, str], stdin: bytes) -> int:
        """Start a command with exactly the environment `env`; return its process id."""
        answer = await self.call(
            "guest-exec",
            path=argv[0],
            arg=argv[1:],
            env=[f"{name}={value}" for name, value in env.items()],
            input_data=base64.b64encode(stdin).decode(),
            capture_output=True,
        )
        return int(answer["pid"])

    async def wait(self, pid: int) -> Finished:
        """Wait for the end of a command, and of all that hold its output open.

        Can be asked once; the agent forgets the command with its answer.
        """
        pause = 0.003
        while not (answer := await self.call("guest-exec-status", pid=pid))["exited"]:
            await asyncio.sleep(pause)
            pause = min(pause * 1.25, 0.1)
        if answer.get("out-truncated") or answer.get("err-truncated"):
            msg = "the command wrote more than the 16 MB that the guest agent keeps"
            raise LabError(msg)
        signal = answer.get("signal")
        return Finished(
            returncode=answer["exitcode"] if signal is None else -signal,
            stdout=base64.b64decode(answer.get("out-data", "")),
            stderr=base64.b64decode(answer.get("err-data", "")),
        )
