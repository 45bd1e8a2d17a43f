# SPDX-License-Identifier: Apache-2.0
"""A machine whose steps are written down, and jobs that can be stopped half-way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fakes import World, control_of, started
from zoned.engine.jobs.control import Cancelled, Suspended
from zoned.errors import KernelRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.engine.engine import Engine
    from zoned.engine.jobs.control import JobControl
    from zoned.model.job import JobKind, JobRequest
    from zoned.model.zone import Limits


@dataclass
class Stage:
    """A machine, a daemon, and what happened in order."""

    world: World
    engine: Engine
    steps: list[str] = field(default_factory=list)
    limits: list[Limits] = field(default_factory=list)
    on_move: Callable[[int], None] = lambda _: None
    """called with the pid of each process whose pages move"""
    control: JobControl = field(default_factory=control_of)

    def begin(self, kind: JobKind, **parameters: Any) -> JobRequest:
        """Do what a job would do, to its end."""
        request, body = self.engine.prepare(kind, parameters)
        self.control = control_of()
        body(self.control)
        return request

    def stopped(self, how: str, kind: JobKind, **parameters: Any) -> JobRequest:
        """Have a job end when it has moved the pages of its first process; see `STOPS`."""
        request, body = self.engine.prepare(kind, parameters)
        self.control = control_of()

        def stop(_: int) -> None:
            if how == "failed":
                raise KernelRefused("no")
            (self.control.cancel if how == "cancelled" else self.control.suspend)()

        self.on_move = stop
        with pytest.raises(STOPS[how]):
            body(self.control)
        self.on_move = lambda _: None
        return request

    def take_up(self, request: JobRequest) -> None:
        """Start the daemon anew, and go on with a job of before."""
        self.engine = started(self.world)
        self.steps.clear()
        self.control = control_of()
        self.engine.bodies()[request.kind](request)(self.control)

    def leaving(self, name: str = "db") -> dict[int, int]:
        return dict(self.engine.machine.store.zones[name].leaving)

    def mems(self, name: str = "db") -> list[int]:
        """Return the nodes that the kernel lets the members use."""
        return sorted(self.world.groups.made[name].limits.mems or ())


STOPS: dict[str, type[Exception]] = {
    "cancelled": Cancelled,
    "failed": KernelRefused,
    "suspended": Suspended,
}
