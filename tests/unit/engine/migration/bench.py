# SPDX-License-Identifier: Apache-2.0
"""Whole moves on a kernel in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.unit.engine.migration.fake_kernel import FakeKernel
from tests.unit.fake_jobs import at_once
from zoned.engine.jobs.control import JobControl
from zoned.engine.migration import batch, look, mover, task
from zoned.engine.migration.plan import Move, Pace
from zoned.engine.migration.route import Route
from zoned.engine.migration.task import move_pages
from zoned.kernel.pidfd import Watch
from zoned.model.migration import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

    from zoned.engine.machine import Machine
    from zoned.model.dma.offer import Span
    from zoned.model.job import Progress

HUGE = 2 << 20
A, B = 10, 11


class Control(JobControl):
    """Takes note of waits instead of sleeping."""

    def __init__(self) -> None:
        super().__init__(at_once, lambda: None)
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.checkpoint()


class Bench:
    """A kernel, and what moves its pages."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kernel = FakeKernel()
        self.control = Control()

    def plan(
        self,
        sharing: Sharing = Sharing.JOB,
        targets: Mapping[int, int] | None = None,
        sources: frozenset[int] | None = None,
        check: Callable[[int, int], None] | None = None,
        fixed: tuple[Span, ...] = (),
        **pace: Any,
    ) -> Move:
        return Move(
            what="test",
            scope=self.kernel,
            route=Route(targets=targets or {1: 1}, sources=sources),
            sharing=sharing,
            pace=Pace(**pace),
            check=check,
            fixed=fixed,
        )

    def move(self, **more: Any) -> Progress:
        """Move all to node 1; return the account."""
        move_pages(self.machine, self.control, self.plan(**more))
        return self.control.progress

    def has_moved(self) -> int:
        """Return what is on node 1, each page once."""
        pages = {id(page): page for each in self.kernel.memory.values() for page in each.values()}
        return sum(page.size for page in pages.values() if page.node == 1)


def connect(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    """Put the kernel in memory in the place of the real one."""
    kernel = bench.kernel

    def move_batch(pid: int, addresses: Any, targets: Any, flags: int) -> batch.Result:
        return batch.move_batch(pid, addresses, targets, flags, kernel.move_pages)

    patch.setattr(task, "Eyes", kernel.eyes)
    patch.setattr(Watch, "alive", lambda _, process: kernel.alive(process))
    patch.setattr(look, "move_pages_raw", kernel.move_pages)
    patch.setattr(mover, "move_batch", move_batch)
    patch.setattr(mover, "migrate_pages", kernel.migrate_pages)
