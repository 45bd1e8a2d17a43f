# SPDX-License-Identifier: Apache-2.0
"""A machine with low memory on two nodes, whose reservations are made without the keeper's help."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.unit.fake_huge import HUGE, FakeHuge
from tests.unit.fake_memory import BLOCK, FakeMemory
from tests.unit.fake_sys import write
from tests.unit.fakes import World, control_of, make_world
from zoned.engine import ledger
from zoned.engine.blocks import keeper, take
from zoned.engine.blocks.keeper import BlockKeeper
from zoned.engine.blocks.observe import needs_of
from zoned.engine.dma import blocks, low_blocks
from zoned.engine.dma import hugetlb as huge_pages
from zoned.engine.dma.pools import HugePools
from zoned.errors import ZonedError
from zoned.kernel import hugetlb
from zoned.kernel.state_file import save_json
from zoned.model.dma.held import Held, Lease
from zoned.model.policy import Policy, SystemReserve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from zoned.engine.dma.holder import Holder
    from zoned.engine.jobs.control import JobControl
    from zoned.engine.machine import Machine
    from zoned.model.dma.offer import Span
    from zoned.model.dma.rung import Rung

DEVICE = "0000:00:05.0"
POLICY = Policy(reserve=SystemReserve(default=0))


class Killed(BaseException):
    """The end of the daemon: nothing catches it, as nothing catches SIGKILL."""


@dataclass
class Scene:
    """Blocks 0 to 7 are node 0's, 8 to 15 node 1's: low memory but for a part of block 0."""

    world: World
    memory: FakeMemory
    huge: FakeHuge
    machine: Machine
    control: JobControl = field(default_factory=control_of)
    left: int | None = None
    """steps until the daemon is killed; None is never"""

    def reserve(
        self, holder: Holder, rung: Rung, mib: int, bits: int, *devices: str, **more: Any
    ) -> Held:
        """Do what is done for a reservation that does not stand yet."""
        held = Held(
            name="scsi", rung=rung, size=mib << 20, mask=(1 << bits) - 1, devices=devices, **more
        )
        self.machine.ledger.reserved(held)
        try:
            found = holder.hold(self.machine, self.control, held)
        except ZonedError:
            self.machine.ledger.unreserved(held.name)
            raise
        self.machine.ledger.reserved(found)
        return self.stand(found)

    def stand(self, held: Held) -> Held:
        """Have it stand."""
        found = replace(held, standing=True)
        self.machine.ledger.reserved(found)
        return found

    def again(self, holder: Holder, *devices: str) -> Held:
        """Repair the reservation, for these devices now."""
        held = replace(self.on_record, devices=devices)
        self.machine.ledger.reserved(held)
        return self.stand(holder.hold(self.machine, self.control, held))

    def release(self, holder: Holder) -> None:
        """Give it back."""
        held = replace(self.on_record, standing=False)
        self.machine.ledger.reserved(held)
        holder.release(self.machine, self.control, held)
        self.machine.ledger.unreserved(held.name)

    def restart(self) -> None:
        """Have a new daemon find what is there."""
        self.left = None
        self.machine.pools.close()
        self.machine = _started(self.world, self.huge)
        self.control = control_of()

    def tidy(self) -> None:
        """Do what the keeper of memory blocks does about blocks on their way back."""
        BlockKeeper(self.machine, lambda *_: None).settle()
        low_blocks.give(self.machine, self.control, needs_of(self.machine).back)

    def lease(self, *segments: Span) -> None:
        """Have a program have a buffer."""
        size = sum(each.size for each in segments)
        self.machine.ledger.leased(
            Lease(
                number=1,
                reservation="scsi",
                pid=1,
                start_time=2,
                uid=3,
                size=size,
                segments=segments,
            )
        )

    def tick(self) -> None:
        """Come one step nearer to the end."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    @property
    def on_record(self) -> Held:
        return self.machine.ledger.touched.reservations["scsi"]

    @property
    def notes(self) -> str:
        return "\n".join(self.control.progress.notes)

    @property
    def owned(self) -> dict[int, str]:
        """Return block -> owner."""
        held = self.machine.ledger.touched.blocks
        return {number: held[number].owner for number in sorted(held)}

    @property
    def kinds(self) -> dict[int, str]:
        """Return the blocks that are not as they were found."""
        kinds = self.memory.kinds()
        return {number: kind for number, kind in kinds.items() if kind != FOUND[number]}


FOUND = {0: "none", **dict.fromkeys(range(1, 16), "DMA32")}


def make_scene(folder: Path, patch: pytest.MonkeyPatch) -> Scene:
    """Return the machine, with four huge pages that somebody uses on each node."""
    world = make_world(folder, {0: 8 * BLOCK, 1: 8 * BLOCK})
    memory = FakeMemory(folder)
    write(folder, {"proc/sys/vm/drop_caches": ""})
    memory.add(0, 0, zone="none")
    memory.add(0, *range(1, 8), zone="DMA32")
    memory.add(1, *range(8, 16), zone="DMA32")
    for module in (blocks, huge_pages, keeper, low_blocks, take):
        patch.setattr(module, "BlockSwitch", memory.switch)
    patch.setattr(take, "refuse_without_refuge", lambda *_: None)
    huge = FakeHuge(folder, node=1, used={each * HUGE for each in range(1000, 1004)})
    huge.supply = lambda: _supply(memory)
    other = huge.other = FakeHuge(folder, node=0, used={2200 * HUGE}, free=[2201 * HUGE])
    scene = Scene(world, memory, huge, _started(world, huge))

    def resize(path: Path, text: str) -> None:
        scene.tick()
        (huge if f"node{huge.node}/" in str(path) else other).resize(path, text)
        scene.tick()

    def save(path: Path, data: Any) -> None:
        scene.tick()
        save_json(path, data)
        scene.tick()

    memory.on_switch = lambda _: scene.tick()
    patch.setattr(hugetlb, "write_text", resize)
    patch.setattr(ledger, "save_json", save)
    return scene


def _started(world: World, huge: FakeHuge) -> Machine:
    machine = world.machine()
    machine.policy = POLICY
    machine.pools = HugePools(huge.pool)
    return machine


def _supply(memory: FakeMemory) -> Iterator[int]:
    """Yield where the kernel makes huge pages of node 1: of movable memory first. Of the last
    block that is movable it keeps two pages.
    """
    movable = [number for number, kind in memory.kinds().items() if kind == "Movable"]
    pages = [at for number in movable for at in range(number * BLOCK, (number + 1) * BLOCK, HUGE)]
    yield from pages[:-2]
    yield from (each * HUGE for each in range(2000, 2100))
