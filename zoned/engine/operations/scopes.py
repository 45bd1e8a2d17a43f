# SPDX-License-Identifier: Apache-2.0
"""Whose pages are to move: one process and what it forks, or all that a list names at the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoned.errors import BadInput, NoSuchProcess
from zoned.kernel.process import Process, alive, children, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from zoned.kernel.root import Root

_START = "start_time"


def living(root: Root, pids: Iterable[int]) -> list[Process]:
    """Return the processes of these numbers that there are; threads of the kernel are none."""
    found = []
    for pid in pids:
        try:
            found.append(find(root, pid))
        except BadInput:
            continue
    return found


def named(root: Root, parameters: Mapping[str, Any]) -> Process:
    """Return the process of the parameter `pid`.

    A request that was `pinned` means the process that had that number then, also after a restart.
    Raises NoSuchProcess, KernelThread.
    """
    process = find(root, int(parameters["pid"]))
    if parameters.get(_START, process.start_time) != process.start_time:
        raise NoSuchProcess(f"the process that had the number {process.pid} has ended")
    return process


def pinned(root: Root, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters, with what tells the process `pid` from a later one."""
    if parameters.get("pid") is None:
        return dict(parameters)
    return {**parameters, _START: named(root, parameters).start_time}


class Family:
    """A process and its descendants, as far as they were forked after the first look."""

    def __init__(self, root: Root, process: Process) -> None:
        self._root = root
        self._members = {process.pid: process}
        self._others: frozenset[tuple[int, int]] | None = None

    def processes(self) -> Sequence[Process]:
        """Return the living ones."""
        young = living(self._root, children(self._root, self._members.keys()))
        if self._others is None:
            self._others = frozenset((each.pid, each.start_time) for each in young)
        while True:
            new = [
                each
                for each in young
                if (each.pid, each.start_time) not in self._others
                and self._members.get(each.pid) != each
            ]
            if not new:
                break
            self._members |= {each.pid: each for each in new}
            young = living(self._root, children(self._root, [each.pid for each in new]))
        return [each for each in self._members.values() if alive(self._root, each)]


class Only:
    """One process, without what it forks."""

    def __init__(self, root: Root, process: Process) -> None:
        self._root = root
        self._process = process

    def processes(self) -> Sequence[Process]:
        """Return it while it lives."""
        return [self._process] if alive(self._root, self._process) else []


class Listed:
    """Processes that a function lists anew each time; those once listed stay in sight."""

    def __init__(self, root: Root, pids: Callable[[], Iterable[int]]) -> None:
        self._root = root
        self._pids = pids
        self._known: dict[int, Process] = {}

    def processes(self) -> Sequence[Process]:
        """Return the living ones."""
        self._known |= {each.pid: each for each in living(self._root, self._pids())}
        return [each for each in self._known.values() if alive(self._root, each)]
