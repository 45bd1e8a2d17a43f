# SPDX-License-Identifier: Apache-2.0
"""Killed at any point, the next start finishes or undoes: nothing orphaned, nothing lost.

Each scenario is run again and again; the first time it is killed at its first point, the next time
at its second, until it comes through. Points are before and after every save, and before every
call that changes the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.fakes import GIB, MIB, FakeUnits, World, control_of, make_world, run_job, started
from zoned.engine import ledger, store
from zoned.kernel.state_file import save_json
from zoned.model.job import JobKind
from zoned.model.policy import Policy
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zoned.engine.engine import Engine

_LOOKS = ("groups", "group", "pids_below")


class Killed(BaseException):
    """The end of the daemon: nothing catches it, as nothing catches SIGKILL."""


class Bomb:
    """Goes off at its n-th point."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for module in (store, ledger):
            patch.setattr(module, "save_json", self._save)
        for fake in (world.groups, world.units):
            if fake is not None:
                self._arm_calls(fake.failures, patch)

    def _arm_calls(self, failures: Any, patch: pytest.MonkeyPatch) -> None:
        def call(method: str, *about: object) -> None:
            if method not in _LOOKS:
                self.tick()
            type(failures).call(failures, method, *about)

        patch.setattr(failures, "call", call, raising=False)

    def _save(self, path: Path, data: Any) -> None:
        self.tick()
        save_json(path, data)
        self.tick()

    def tick(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            raise Killed


def spec(name: str, gib: int = 1, **more: Any) -> ZoneSpec:
    return ZoneSpec(name=name, size=gib * GIB, **more)


def create(engine: Engine, _: World) -> None:
    engine.create(spec("new"))


def grow(engine: Engine, _: World) -> None:
    engine.resize("db", 2 * GIB)


def shrink(engine: Engine, world: World) -> None:
    world.groups.made["db"].used = 700 * MIB
    engine.resize("db", 512 * MIB)


def destroy(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.DESTROY, name="empty")


def drain(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.DESTROY, name="db", drain="root")


def drain_over(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.DESTROY, name="db", drain="empty")


def kill(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.DESTROY, name="db", kill=True)


def attach(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.ATTACH, name="db", pid=9)


def detach(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.DETACH, name="db", pid=7)


def attach_unit(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.ATTACH, name="db", unit="x.service")


def detach_unit(engine: Engine, _: World) -> None:
    run_job(engine, JobKind.DETACH, name="db", unit="y.service")


def reset(engine: Engine, _: World) -> None:
    engine.reset()


def last_of_all(engine: Engine, _: World) -> None:
    engine._load_policy = Policy
    engine.reload()
    engine.reset()


def new_policy(engine: Engine, _: World) -> None:
    engine._load_policy = lambda: Policy(zones=(spec("p", 2), spec("q")))
    engine.reload()


SCENARIOS = (
    create,
    grow,
    shrink,
    destroy,
    drain,
    drain_over,
    kill,
    attach,
    detach,
    attach_unit,
    detach_unit,
    reset,
    last_of_all,
    new_policy,
)


def prepared(folder: Path, mems: str | None = None) -> tuple[World, Engine]:
    """Return a machine with two zones by hand and one of the policy, two members and a unit."""
    units = FakeUnits({"x.service": "/system/x", "y.service": "/system/y"})
    units.nodes = {"x.service": frozenset({1}), "y.service": frozenset({1})}
    world = make_world(folder, units=units)
    engine = started(world, Policy(zones=(spec("p"),)))
    engine.create(spec("db", nodes="0"))
    engine.create(spec("empty"))
    for pid in (7, 8, 9):
        world.add_process(pid, f"/user/{pid}", mems=mems)
    for pid in (7, 8):
        run_job(engine, JobKind.ATTACH, name="db", pid=pid)
    run_job(engine, JobKind.ATTACH, name="db", unit="y.service")
    return world, engine


def check(world: World, engine: Engine) -> None:
    """Assert that what is wanted, what is there and what is in the ledger agree."""
    wanted, touched = engine.machine.store.zones, engine.machine.ledger.touched
    assert set(wanted) == set(world.groups.made) == set(touched.groups)
    assert world.groups.there == touched.parent == bool(wanted)
    for zone in wanted.values():
        assert world.groups.made[zone.name].limits.max == zone.spec.size
    minimums = [group.limits.min for group in world.groups.made.values()]
    assert world.groups.minimum == sum(minimums)
    assert not world.groups.broken_promises
    assert not engine.alerts
    recorded = {member.pid: member.former for member in touched.members}
    for pid, place in world.groups.where.items():
        is_member = place.startswith("/zone/")
        assert place == f"/user/{pid}" or is_member
        assert not is_member or recorded[pid] == f"/user/{pid}"
    check_units(world, engine)


def check_units(world: World, engine: Engine) -> None:
    """Assert that each unit is attached whole, or free."""
    assert world.units is not None
    zones = engine.machine.store.zones.values()
    for unit in ("x.service", "y.service"):
        home = next((zone for zone in zones if unit in zone.units), None)
        nodes = home.nodes if home else frozenset({1})
        place = home.name if home else None
        recorded = unit in engine.machine.ledger.touched.units
        found = (world.units.nodes[unit], world.units.placed.get(unit), recorded)
        assert found == (nodes, place, home is not None)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_killed_at_any_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Engine, World], None]
) -> None:
    for point in range(200):
        with monkeypatch.context() as patch:
            world, engine = prepared(tmp_path / str(point))
            bomb = Bomb(world, patch)
            bomb.left = point
            try:
                scenario(engine, world)
                came_through = True
            except Killed:
                came_through = False
        policy = engine._load_policy()
        check(world, started(world, policy))
        if came_through:
            assert point > 2
            return
    pytest.fail("it never came through")


HOME = {pid: f"/user/{pid}" for pid in (7, 8, 9)}
DB = {7: "/zone/db", 8: "/zone/db"}
TAKEN_UP: dict[str, tuple[JobKind, dict[str, Any], dict[int, str]]] = {
    "move": (JobKind.MOVE, {"name": "db", "nodes": "1"}, DB),
    "attach": (JobKind.ATTACH, {"name": "db", "pid": 9}, DB | {9: "/zone/db"}),
    "attach-unit": (JobKind.ATTACH, {"name": "db", "unit": "x.service"}, DB),
    "detach": (JobKind.DETACH, {"name": "db", "cgroup": "/user/7"}, {8: "/zone/db"}),
    "drain": (JobKind.DESTROY, {"name": "db", "drain": "root"}, {}),
    "drain-over": (
        JobKind.DESTROY,
        {"name": "db", "drain": "empty"},
        {7: "/zone/empty", 8: "/zone/empty"},
    ),
}
"""What is done, and who is in which zone in the end."""


@pytest.mark.parametrize("name", TAKEN_UP)
def test_killed_at_any_point_a_job_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also where the nodes of cpusets are in the way, so that zones are widened meanwhile."""
    policy = Policy(zones=(spec("p"),))
    kind, parameters, members = TAKEN_UP[name]
    for point in range(200):
        with monkeypatch.context() as patch:
            world, engine = prepared(tmp_path / str(point), mems="1")
            bomb = Bomb(world, patch)
            request, body = engine.prepare(kind, parameters)
            bomb.left = point
            try:
                body(control_of())
                came_through = True
            except Killed:
                came_through = False
        engine = started(world, policy)
        engine.bodies()[kind](request)(control_of())
        engine.tick()
        check(world, engine)
        assert all(not zone.leaving for zone in engine.machine.store.zones.values())
        assert world.groups.where == HOME | members
        if came_through:
            assert point > 2
            return
    pytest.fail("it never came through")


def test_killed_at_any_point_of_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that mends what another left half-done can be killed too."""
    policy = Policy(zones=(spec("p", 2), spec("q")))
    for point in range(200):
        with monkeypatch.context() as patch:
            world, _ = prepared(tmp_path / str(point))
            world.boot = "next boot"
            bomb = Bomb(world, patch)
            bomb.left = point
            try:
                started(world, policy)
                came_through = True
            except Killed:
                came_through = False
        engine = started(world, policy)
        assert set(engine.machine.store.zones) == set(world.groups.made)
        assert not engine.alerts
        if came_through:
            return
    pytest.fail("it never came through")
