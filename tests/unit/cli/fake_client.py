# SPDX-License-Identifier: Apache-2.0
"""A client whose daemon is a script: what it answers, how jobs go on, and when it is away."""

from __future__ import annotations

import signal
import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.unit.api.declared import METHODS
from zoned.api.types import JobInfo
from zoned.errors import Bug, NoDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = JobInfo | BaseException | Callable[[], object]

MIB = 1 << 20
DEADLINE = 20
"""Seconds after which a test gives up to wait."""

RUNNING = JobInfo(
    id=7,
    kind="attach",
    what="attach pid 4711 to zone db",
    state="running",
    phase="moving pages",
    total=512 * MIB,
    done=0,
    left=512 * MIB,
    left_behind=0,
    rate=None,
    eta=None,
    outcomes={},
    processes=0,
    gone=0,
    longest_call=0.0,
    foreign=None,
    notes=[],
    created=1000.0,
    started=1000.5,
    ended=None,
    error=None,
)
DONE = replace(
    RUNNING,
    state="done",
    done=512 * MIB,
    left=0,
    outcomes={"moved": 512 * MIB, "there": 4 * MIB},
    processes=1,
    longest_call=0.0093,
    foreign=500 * MIB,
    notes=["a note"],
    ended=1004.5,
)


def ctrl_c() -> None:
    """Press Ctrl-C."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class FakeDaemon:
    """Stands for the daemon and the connections to it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        """by method, e.g. "Zones.Attach"; exceptions are raised, a deque gives one after another"""
        self.watches: list[list[Step]] = []
        """what one Watch after the other yields, raises or does"""
        self.away = 0
        """how many attempts to connect fail"""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.over = threading.Event()
        self._called = threading.Condition()

    def client(self, socket: str) -> FakeClient:
        """Connect, in the place of Client."""
        if self.away:
            self.away -= 1
            raise NoDaemon(f"no daemon listens on {socket}")
        return FakeClient(self)

    def called(self, method: str, parameters: dict[str, Any]) -> None:
        """Remember a call."""
        with self._called:
            self.calls.append((method, parameters))
            self._called.notify_all()

    def until_called(self, method: str) -> Callable[[], object]:
        """Return a step that waits for a call."""

        def wait() -> None:
            with self._called:
                assert self._called.wait_for(lambda: method in dict(self.calls), DEADLINE)

        return wait

    def hang(self) -> None:
        """Say nothing more until the test is over."""
        assert self.over.wait(DEADLINE)
        raise Bug("the test is over")


def check_declared(method: str, result: Any, parameters: dict[str, Any]) -> None:
    """Check that the real daemon would take these, and answer with that."""
    assert result == METHODS[method].result
    assert parameters.keys() <= METHODS[method].parameters


class FakeClient:
    """One connection."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, method: str, result: Any, **parameters: Any) -> Any:
        """Return or raise what the script has for the method."""
        check_declared(method, result, parameters)
        self._daemon.called(method, parameters)
        answer = self._daemon.answers[method]
        if isinstance(answer, deque):
            answer = answer.popleft()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stream(self, method: str, result: Any, **parameters: Any) -> Iterator[Any]:
        """Go through the next script of a Watch."""
        assert method == "Jobs.Watch"
        check_declared(method, result, parameters)
        self._daemon.called(method, parameters)
        for step in self._daemon.watches.pop(0):
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, JobInfo):
                yield step
            else:
                step()
