# SPDX-License-Identifier: Apache-2.0
"""A machine with devices of short reach, and a daemon's jobs on it that run when they are let."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.engine.dma.desk import Desk, lent
from tests.unit.engine.dma.fakes import add_huge
from tests.unit.fake_devices import EDU, add_device
from tests.unit.fake_low_memory import MIB, FakeLowMemory
from tests.unit.fakes import World, control_of, make_world
from zoned.engine.dma import leases as leases_module
from zoned.engine.engine import Engine
from zoned.errors import ZoneBusy, ZonedError
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.match import Match
from zoned.model.dma.wish import DmaPolicy, Quirk, Wish
from zoned.model.job import Job, JobError, JobState
from zoned.model.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.unit.fake_huge import FakeHuge
    from zoned.engine.jobs.control import Body, JobControl
    from zoned.model.dma.held import Held
    from zoned.model.job import JobRequest

CARD = "0000:00:02.0"
ANY_EDU = Match(id=("1234:11e8",))
QUIRK = Quirk(match=ANY_EDU, limit=bits_mask(31), place="q.yaml:1")


def wish(name: str = "teach", size: int = 64 * MIB, **more: Any) -> Wish:
    """Return what the policy wants for each edu device."""
    return Wish(**{"match": ANY_EDU, "place": f"w.yaml:{name}", **more}, name=name, size=size)


def policy(*wishes: Wish) -> Policy:
    """Return a policy of these wishes, in which an edu device reaches 31 bits."""
    return Policy(dma=DmaPolicy(quirks=(QUIRK,), wishes=wishes))


@dataclass
class FakeJobs:
    """See JobRunner: what is started waits until the test has it run."""

    waiting: dict[int, tuple[JobRequest, Body]] = field(default_factory=dict)
    over: list[Job] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def start(self, request: JobRequest, uid: int, body: Body) -> Job:
        for name in request.zones:
            self.refuse_busy(name)
        number = len(self.over) + len(self.waiting) + 1
        self.waiting[number] = (request, body)
        return Job(id=number, request=request, uid=uid, created=0.0)

    @property
    def busy_zones(self) -> dict[str, int]:
        return {name: at for at, (each, _) in self.waiting.items() for name in each.zones}

    def refuse_busy(self, name: str) -> None:
        if name in self.busy_zones:
            raise ZoneBusy(f"{name} is busy")

    @property
    def active(self) -> Sequence[Job]:
        return [
            Job(id=number, request=request, uid=0, created=0.0)
            for number, (request, _) in self.waiting.items()
        ]

    def list(self) -> Sequence[Job]:
        return self.over

    def run(self) -> Sequence[str]:
        """Run all that waits; return what each was, and the code with which it failed."""
        found = []
        for number, (request, body) in list(self.waiting.items()):
            control = control_of()
            error = self._carry_out(body, control)
            del self.waiting[number]
            state = JobState.FAILED if error else JobState.DONE
            failure = error and JobError(code=error.code, message=error.message, hint=error.hint)
            job = Job(
                id=number, request=request, uid=0, created=0.0, state=state, error=failure or None
            )
            self.over.append(job)
            self.notes = list(control.progress.notes)
            found.append(f"{request.what}{f' [{error.code}]' if error else ''}")
        return found

    def _carry_out(self, body: Body, control: JobControl) -> ZonedError | None:
        try:
            body(control)
        except ZonedError as error:
            return error
        return None


@dataclass
class Scene:
    """A machine and the engine on it, which can be started anew."""

    world: World
    memory: FakeLowMemory
    policy: Policy = field(default_factory=Policy)
    jobs: FakeJobs = field(default_factory=FakeJobs)
    engine: Engine = field(init=False)
    load: Callable[[], Policy] = field(init=False)

    def __post_init__(self) -> None:
        self.load = lambda: self.policy
        self.start()

    def start(self) -> None:
        """Start a daemon, as after a kill of the last one."""
        self.jobs = FakeJobs()
        self.engine = Engine(self.world.machine(), lambda: self.load())
        self.engine.start()
        self.engine.jobs = self.jobs  # type: ignore[assignment]

    def want(self, *wishes: Wish) -> Sequence[str]:
        """Have the policy want this from now on; return what jobs did about it."""
        self.policy = policy(*wishes)
        self.engine.reload()
        return self.jobs.run()

    def tick(self) -> Sequence[str]:
        """Look at the machine; return what jobs did about it, and look again."""
        self.engine.tick()
        found = self.jobs.run()
        self.engine.tick()
        return found

    def plug(self, address: str = CARD, **files: str) -> None:
        """Have a device appear."""
        add_device(self.folder, address, {**EDU, **files})

    def pull(self, address: str = CARD) -> None:
        """Have a device go."""
        (self.folder / f"sys/bus/pci/devices/{address}").unlink()

    @property
    def folder(self) -> Path:
        return self.world.folder

    @property
    def held(self) -> dict[str, Held]:
        """Return what is in the ledger."""
        return dict(self.engine.machine.ledger.touched.reservations)

    @property
    def alerts(self) -> dict[str, str]:
        """Return the alerts of the last look: subject -> code and message."""
        return {each.subject: f"[{each.code}] {each.message}" for each in self.engine.alerts}


def make_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return a machine of 8 GiB with an edu device, of which 2 GiB lie where it reaches."""
    memory = FakeLowMemory(tmp_path)
    memory.answer(monkeypatch)
    found = Scene(make_world(tmp_path), memory)
    found.plug()
    return found


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return make_scene(tmp_path, monkeypatch)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(make_world(tmp_path).machine())
    yield found
    for file in found.files:
        os.close(file)


@pytest.fixture
def huge(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHuge:
    """A pool of huge pages; what is lent is given back by `FakeFile.let_go`."""
    made = add_huge(desk.machine, tmp_path)
    monkeypatch.setattr(leases_module, "_inode_of", lambda file: 70 + file)
    monkeypatch.setattr(Desk, "alloc", lambda self, *a, **k: lent(self, self.begin(*a, **k)))
    return made
