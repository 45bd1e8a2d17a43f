# SPDX-License-Identifier: Apache-2.0
"""A machine with memory blocks, and a daemon that can be killed at any step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.unit.fake_memory import BLOCK, FakeMemory
from tests.unit.fake_sys import write
from tests.unit.fakes import World, make_world, run_job, started
from zoned.engine import ledger, store
from zoned.engine.blocks import keeper, take
from zoned.engine.operations import blocks as operations
from zoned.kernel.state_file import save_json
from zoned.model.job import JobKind
from zoned.model.policy import Policy, SystemReserve
from zoned.model.zone import Backing, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from zoned.engine.engine import Engine
    from zoned.model.job import Progress

SIZE = 8 * BLOCK
POLICY = Policy(reserve=SystemReserve(default=0))
NORMAL = dict.fromkeys(range(8, 16), "Normal")


class Killed(BaseException):
    """The end of the daemon: nothing catches it, as nothing catches SIGKILL."""


@dataclass
class Stage:
    """Two nodes of eight blocks each, of which the first is low memory."""

    world: World
    memory: FakeMemory
    engine: Engine
    policy: Policy = POLICY
    ticks: list[str] = field(default_factory=list)
    left: int | None = None

    def tick(self, what: str) -> None:
        self.ticks.append(what)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def restart(self) -> Engine:
        self.left = None
        self.engine = started(self.world, self.policy)
        return self.engine

    def run(self, kind: JobKind, **parameters: Any) -> Progress:
        return run_job(self.engine, kind, **parameters)

    def create(self, blocks: int, name: str = "db") -> Progress:
        return self.run(JobKind.CREATE, spec=spec(blocks, name))

    @property
    def kinds(self) -> dict[int, str]:
        """The second node's blocks."""
        return {number: kind for number, kind in self.memory.kinds().items() if number >= 8}

    def of(self, owner: str) -> list[int]:
        held = self.engine.machine.ledger.touched.blocks
        return sorted(number for number, each in held.items() if each.owner == owner)


def spec(blocks: int, name: str = "db") -> ZoneSpec:
    return ZoneSpec(name=name, size=blocks * BLOCK, nodes="1", backing=Backing.BLOCKS)


def make_stage(folder: Path, patch: pytest.MonkeyPatch, policy: Policy = POLICY) -> Stage:
    world = make_world(folder, {0: SIZE, 1: SIZE})
    memory = FakeMemory(folder)
    write(folder, {"proc/sys/vm/drop_caches": ""})
    memory.add(0, *range(8), zone="DMA32")
    memory.add(1, *range(8, 16), zone="Normal")
    for module in (keeper, take, operations):
        patch.setattr(module, "BlockSwitch", memory.switch)
    patch.setattr(take, "refuse_without_refuge", lambda *_: None)
    stage = Stage(world, memory, started(world, policy), policy)
    memory.on_switch = lambda number: stage.tick(f"switch {number}")

    def save(path: Path, data: Any) -> None:
        stage.tick(f"before {path.name}")
        save_json(path, data)
        stage.tick(f"after {path.name}")

    for module in (store, ledger):
        patch.setattr(module, "save_json", save)
    return stage
