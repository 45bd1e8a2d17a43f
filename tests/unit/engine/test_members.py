# SPDX-License-Identifier: Apache-2.0
"""Members come, go and fork meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.fakes import GIB, World, run_job, started
from zoned.engine.migration import whole
from zoned.errors import (
    HasMembers,
    KernelRefused,
    KernelThread,
    NoSuchCgroup,
    NoSuchProcess,
    NoSuchZone,
    NotAMember,
    NotConfinable,
    TryLater,
    Unsupported,
    UsageError,
    ZonedError,
)
from zoned.model.job import JobKind
from zoned.model.zone import ZoneSpec

if TYPE_CHECKING:
    from zoned.engine.engine import Engine
    from zoned.model.job import Progress


@pytest.fixture(autouse=True)
def zones(engine: Engine) -> None:
    """Make two zones."""
    engine.create(ZoneSpec(name="db", size=GIB))
    engine.create(ZoneSpec(name="web", size=GIB))


def attach(
    engine: Engine,
    pid: int | None = None,
    unit: str | None = None,
    cgroup: str | None = None,
    zone: str = "db",
) -> Progress:
    return run_job(engine, JobKind.ATTACH, name=zone, pid=pid, unit=unit, cgroup=cgroup)


def detach(
    engine: Engine, pid: int | None = None, unit: str | None = None, cgroup: str | None = None
) -> Progress:
    return run_job(engine, JobKind.DETACH, name="db", pid=pid, unit=unit, cgroup=cgroup)


def test_attach_and_detach(world: World, engine: Engine) -> None:
    world.add_process(7, "/user")
    assert attach(engine, 7).processes == 1
    assert world.groups.pids("db") == (7,)
    assert detach(engine, 7).processes == 1
    assert world.groups.where[7] == "/user"
    assert not engine.machine.ledger.touched.members


def test_it_is_in_the_ledger_before_it_moves(world: World, engine: Engine) -> None:
    world.add_process(7, "/user")
    world.groups.failures.at("attach", KernelRefused("no"))
    with pytest.raises(KernelRefused):
        attach(engine, 7)
    (member,) = started(world).machine.ledger.touched.members
    assert (member.pid, member.zone, member.former) == (7, "db", "/user")


def test_from_zone_to_zone_and_back_to_where_it_first_was(world: World, engine: Engine) -> None:
    world.add_process(7, "/user")
    attach(engine, 7)
    attach(engine, 7, zone="web")
    assert world.groups.pids("web") == (7,)
    run_job(engine, JobKind.DESTROY, name="web", drain="db")
    assert world.groups.pids("db") == (7,)
    run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert world.groups.where[7] == "/user"


def test_a_program_enters_by_itself(world: World, engine: Engine) -> None:
    world.add_process(7, "/user")
    engine.enter("db", 7)
    assert world.groups.pids("db") == (7,)
    assert detach(engine, 7).processes == 1
    assert world.groups.where[7] == "/user"


@pytest.mark.parametrize(
    ("pid", "error"),
    [
        (1, NotConfinable),
        (os.getpid(), NotConfinable),
        (99, NoSuchProcess),
        (8, KernelThread),
    ],
    ids=["init", "daemon", "nobody", "thread"],
)
def test_who_cannot_be_a_member(
    world: World, engine: Engine, pid: int, error: type[ZonedError]
) -> None:
    world.add_process(8, ppid=2)
    before = dict(world.groups.where)
    with pytest.raises(error):
        attach(engine, pid)
    assert world.groups.where == before


def test_a_process_that_ends_during_the_move_is_no_member(world: World, engine: Engine) -> None:
    world.add_process(7)
    attach_really = world.groups.attach

    def attach_then_end(zone: str, pids: list[int]) -> None:
        attach_really(zone, pids)
        world.end_process(7)

    world.groups.attach = attach_then_end  # type: ignore[assignment, method-assign]
    assert attach(engine, 7).processes == 1
    engine.tick()
    assert not engine.machine.ledger.touched.members


def test_a_process_that_the_kernel_takes_nowhere_any_more_is_tried_once(
    world: World, engine: Engine
) -> None:
    """It has begun to end: /proc still shows it, and its cgroup cannot be changed."""
    world.add_process(7)
    world.groups.where.pop(7)
    attach(engine, 7)
    assert world.groups.failures.calls.count("attach db 7") == 1
    assert not world.groups.pids("db")


def test_unknown_zones_and_unclear_requests(world: World, engine: Engine) -> None:
    world.add_process(7)
    for kind in (JobKind.ATTACH, JobKind.DETACH):
        with pytest.raises(NoSuchZone):
            engine.prepare(kind, {"name": "ghost", "pid": 7})
        with pytest.raises(UsageError):
            engine.prepare(kind, {"name": "db"})
        with pytest.raises(UsageError):
            engine.prepare(kind, {"name": "db", "pid": 7, "cgroup": "/"})
        with pytest.raises((Unsupported, NotAMember)):
            engine.prepare(kind, {"name": "db", "unit": "x.service"})
    with pytest.raises(NoSuchZone):
        engine.enter("ghost", 7)


def test_who_is_no_member_is_not_detached(world: World, engine: Engine) -> None:
    world.add_process(7)
    attach(engine, 7, zone="web")
    with pytest.raises(NotAMember, match="process 7 is no member of zone db"):
        detach(engine, 7)
    with pytest.raises(NotAMember):
        detach(engine, cgroup="/")
    world.groups.made.pop("db")
    with pytest.raises(NotAMember):
        detach(engine, 7)
    with pytest.raises(NotAMember):
        detach(engine, cgroup="/")


def test_a_cgroup_with_all_that_it_forks(world: World, engine: Engine) -> None:
    for pid in (20, 21, 22):
        world.add_process(pid, "/batch/job")
    world.add_process(30, "/other")
    passes = iter([[], [23, 24], [25], []])

    def fork() -> None:
        for pid in next(passes, []):
            world.add_process(pid, "/batch/job")

    world.groups.on_pids = fork
    assert attach(engine, cgroup="/batch").gone == 0
    assert world.groups.pids("db") == (20, 21, 22, 23, 24, 25)
    world.groups.on_pids = lambda: None
    assert detach(engine, cgroup="/batch/job").processes == 6
    assert world.groups.where == dict.fromkeys(range(20, 26), "/batch/job") | {30: "/other"}


def test_processes_that_end_meanwhile_are_counted(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in (20, 21, 22):
        world.add_process(pid, "/batch")

    def reap(_: object, pid: int, *__: object) -> int:
        if pid == 20:
            return 0
        world.end_process(pid)
        raise NoSuchProcess("gone")

    monkeypatch.setattr(whole, "move_all_pages", reap)
    progress = attach(engine, cgroup="/batch")
    assert (progress.processes, progress.gone) == (1, 2)
    assert world.groups.pids("db") == (20,)


def test_an_empty_cgroup_is_no_work(world: World, engine: Engine) -> None:
    assert attach(engine, cgroup="/batch").processes == 0
    with pytest.raises(NoSuchCgroup):
        attach(engine, cgroup="/no-such")
    with pytest.raises(NoSuchCgroup):
        attach(engine, cgroup="")


@pytest.mark.parametrize("cgroup", ["/zone/db", "/zone", "/", "/zone/"])
def test_a_cgroup_that_holds_the_zone_itself(world: World, engine: Engine, cgroup: str) -> None:
    world.add_process(7, "/user")
    attach(engine, 7)
    with pytest.raises(NoSuchCgroup, match="holds zone db itself"):
        attach(engine, cgroup=cgroup)


def test_nobody_moves_where_the_daemon_is_among_them(world: World, engine: Engine) -> None:
    world.add_process(20, "/system")
    world.add_process(os.getpid(), "/system")
    with pytest.raises(NotConfinable):
        attach(engine, cgroup="/system")
    assert not world.groups.pids("db")


def test_who_forks_without_end_is_given_up(world: World, engine: Engine) -> None:
    pids = iter(range(100, 999))

    def fork() -> None:
        world.add_process(next(pids), "/bomb")

    world.groups.on_pids = fork
    with pytest.raises(TryLater, match="after 50 passes") as error:
        attach(engine, cgroup="/bomb")
    assert "freeze" in error.value.hint


def test_drain_puts_all_back_and_children_beside_their_parents(
    world: World, engine: Engine
) -> None:
    world.add_process(7, "/user/a")
    world.add_process(8, "/user/b")
    attach(engine, 7)
    attach(engine, 8)
    world.add_process(17, "/zone/db", ppid=7)
    world.add_process(18, "/zone/db", ppid=17)
    world.add_process(19, "/zone/db", ppid=1)
    world.add_process(20, "/zone/db", ppid=99)
    run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert world.groups.where == {
        7: "/user/a",
        8: "/user/b",
        17: "/user/a",
        18: "/user/a",
        19: "/",
        20: "/",
    }
    assert not engine.machine.ledger.touched.members


def test_drain_catches_what_is_forked_meanwhile(world: World, engine: Engine) -> None:
    world.add_process(7, "/user/a")
    attach(engine, 7)
    release, pids = world.groups.release, iter([17, 18])

    def release_and_fork(moved: list[int], former: str | None) -> None:
        release(moved, former)
        for pid in [next(pids, None)]:
            if pid is not None:
                world.add_process(pid, "/zone/db", ppid=7)

    world.groups.release = release_and_fork  # type: ignore[assignment, method-assign]
    run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert world.groups.where == dict.fromkeys((7, 17, 18), "/user/a")


def test_drain_into_another_zone(world: World, engine: Engine) -> None:
    for pid in (7, 8):
        world.add_process(pid, "/user")
        attach(engine, pid)
    run_job(engine, JobKind.DESTROY, name="db", drain="web")
    assert world.groups.pids("web") == (7, 8)
    assert world.groups.made.keys() == {"web"}


@pytest.mark.parametrize(("target", "error"), [("ghost", NoSuchZone), ("db", HasMembers)])
def test_drains_that_make_no_sense(
    world: World, engine: Engine, target: str, error: type[ZonedError]
) -> None:
    world.add_process(7)
    attach(engine, 7)
    with pytest.raises(error):
        run_job(engine, JobKind.DESTROY, name="db", drain=target)
    assert world.groups.pids("db") == (7,)


def test_a_drain_that_fails_keeps_the_zone_and_what_is_known(world: World, engine: Engine) -> None:
    for pid in (7, 8):
        world.add_process(pid, f"/user/{pid}")
        attach(engine, pid)
    world.groups.failures.at("release", KernelRefused("no"))
    with pytest.raises(KernelRefused):
        run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert "db" in world.groups.made
    run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert world.groups.where == {7: "/user/7", 8: "/user/8"}


def test_a_drain_where_the_group_is_gone(world: World, engine: Engine) -> None:
    world.groups.made.pop("db")
    run_job(engine, JobKind.DESTROY, name="db", drain="root")
    assert engine.machine.store.zones.keys() == {"web"}


def test_a_pid_that_is_used_again_is_another_process(world: World, engine: Engine) -> None:
    world.add_process(7, "/first", start=100)
    attach(engine, 7)
    world.end_process(7)
    world.add_process(7, "/second", start=200)
    attach(engine, 7)
    assert detach(engine, 7).processes == 1
    assert world.groups.where[7] == "/second"


def test_an_unknown_member_with_a_known_pid_has_no_former_place(
    world: World, engine: Engine
) -> None:
    world.add_process(7, "/first", start=100)
    attach(engine, 7)
    world.end_process(7)
    world.add_process(7, "/zone/db", start=200)
    detach(engine, 7)
    assert world.groups.where[7] == "/"


@pytest.mark.parametrize("how", ["tick", "start"])
def test_those_that_ended_are_forgotten(world: World, engine: Engine, how: str) -> None:
    for pid in (7, 8, 9):
        world.add_process(pid, "/user")
        attach(engine, pid)
    world.end_process(7)
    world.end_process(8)
    world.add_process(8, "/zone/db", start=500)
    if how == "tick":
        engine.tick()
    else:
        engine = started(world)
    assert [member.pid for member in engine.machine.ledger.touched.members] == [9]


def test_reset(world: World, engine: Engine) -> None:
    world.add_process(7, "/user")
    attach(engine, 7)
    world.groups.units["web"] = ("x.service",)
    (left,) = engine.reset()
    assert left.startswith("web: x.service runs in zone web")
    assert world.groups.where[7] == "/user"
    world.groups.units.clear()
    assert engine.reset() == []
    assert not world.groups.there
