# SPDX-License-Identifier: Apache-2.0
"""The fence on a machine: put up, mended, taken down, and never lost sight of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.fence.fakes import FakeFence, nodes, outsider
from tests.unit.fake_sys import NODES, write
from tests.unit.fakes import GIB, World, make_world
from zoned.engine import ledger
from zoned.engine.fence.keep import check_fence, keep_fence
from zoned.errors import FenceImpossible, KernelRefused, ServiceManager, Unsupported
from zoned.kernel.cgroup.fence import Loose
from zoned.kernel.process import Process
from zoned.kernel.state_file import save_json
from zoned.model.alert import Alert, AlertCode

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from zoned.engine.machine import Machine
    from zoned.kernel.own_policy import OwnMemory

FENCED = nodes(2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, {0: 4 * GIB, 1: 4 * GIB, 2: 4 * GIB})


@pytest.fixture
def fence() -> FakeFence:
    return FakeFence().add(outsider("system.slice"), outsider("db.slice", 1, 2))


@pytest.fixture
def machine(world: World, fence: FakeFence) -> Machine:
    return machine_of(world, fence)


def machine_of(world: World, fence: FakeFence) -> Machine:
    """Return the machine as a daemon that starts now would find it."""
    machine = world.machine()
    machine.fence = fence
    return machine


def about(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.code.value, alert.subject) for alert in alerts]


def test_up_and_down_again(machine: Machine, fence: FakeFence) -> None:
    before = fence.own()

    assert keep_fence(machine, FENCED) == []
    assert fence.own() == {"system.slice": nodes(0, 1), "db.slice": nodes(1)}
    assert machine.ledger.touched.fence == before

    assert keep_fence(machine, nodes()) == []
    assert fence.own() == before
    assert machine.ledger.touched.fence == {}


def test_without_a_fence_nobody_is_looked_at(machine: Machine, fence: FakeFence) -> None:
    changed: list[int] = []
    machine.fence_changed = lambda: changed.append(1)

    assert keep_fence(machine, nodes()) == []

    assert fence.failures.calls == []
    assert changed == []


def test_a_second_look_changes_nothing(machine: Machine, fence: FakeFence) -> None:
    keep_fence(machine, FENCED)
    fence.failures.calls.clear()

    assert keep_fence(machine, FENCED) == []

    assert fence.failures.calls == ["outsiders"]


def test_the_ledger_is_first(machine: Machine, fence: FakeFence) -> None:
    def recorded(name: str) -> None:
        assert name in machine.ledger.touched.fence

    fence.before_confine = recorded
    keep_fence(machine, FENCED)
    assert len(machine.ledger.touched.fence) == 2


def test_new_groups_and_drift(machine: Machine, fence: FakeFence) -> None:
    keep_fence(machine, FENCED)
    fence.add(outsider("machine.slice"), outsider("system.slice"))

    assert keep_fence(machine, FENCED) == []

    assert fence.own()["machine.slice"] == fence.own()["system.slice"] == nodes(0, 1)
    # What it was before is what it was before the fence, not after somebody else's change.
    assert machine.ledger.touched.fence["system.slice"] == nodes()


def test_one_that_fails_is_told_and_tried_again(machine: Machine, fence: FakeFence) -> None:
    fence.failures.at("confine", ServiceManager("no"))

    alerts = keep_fence(machine, FENCED)
    assert about(alerts) == [("fence-broken", "system.slice")]
    assert "confine system.slice to nodes 0-1: no" in alerts[0].message
    assert fence.own()["db.slice"] == nodes(1)

    assert keep_fence(machine, FENCED) == []


def test_one_that_cannot_be_freed_stays_on_record(machine: Machine, fence: FakeFence) -> None:
    keep_fence(machine, FENCED)
    fence.failures.at("lift", KernelRefused("no"))

    assert about(keep_fence(machine, nodes())) == [("fence-broken", "system.slice")]
    assert machine.ledger.touched.fence == {"system.slice": nodes()}

    assert keep_fence(machine, nodes()) == []
    assert machine.ledger.touched.fence == {}


def test_what_has_no_effect_is_told(machine: Machine, fence: FakeFence) -> None:
    fence.ignores.add("system.slice")

    alerts = keep_fence(machine, FENCED)

    assert about(alerts) == [("fence-broken", "system.slice")]
    assert alerts[0].message == "may use node 2"


def test_groups_that_cannot_be_looked_at(machine: Machine, fence: FakeFence) -> None:
    fence.failures.at("outsiders", ServiceManager("no bus"))

    assert about(keep_fence(machine, FENCED)) == [("fence-broken", "all groups")]


def test_a_group_with_no_other_node(machine: Machine, fence: FakeFence) -> None:
    fence.add(outsider("mine.slice", 2))

    with pytest.raises(FenceImpossible, match=r"mine\.slice would have no node left"):
        check_fence(machine, FENCED)
    alerts = keep_fence(machine, FENCED)

    assert about(alerts) == [("fence-broken", "mine.slice")]
    assert alerts[0].message == "would have no node left besides node 2"
    assert fence.own()["mine.slice"] == nodes(2)
    assert fence.own()["system.slice"] == nodes(0, 1)


def test_nodes_without_kernel_memory_are_not_enough(machine: Machine, world: World) -> None:
    check_fence(machine, FENCED)
    write(world.folder, {f"{NODES}/has_normal_memory": "0,2"})

    with pytest.raises(FenceImpossible, match=r"db\.slice"):
        check_fence(machine, FENCED)


def test_a_daemon_among_others(machine: Machine, fence: FakeFence) -> None:
    fence.add(outsider("user.slice", holds_daemon=True))

    with pytest.raises(FenceImpossible, match=r"the daemon runs in user\.slice"):
        check_fence(machine, FENCED)
    check_fence(machine, nodes())
    (alert,) = keep_fence(machine, FENCED)

    assert (alert.code, alert.subject) == (AlertCode.FENCE_BROKEN, "user.slice")
    assert "because the daemon runs in it" in alert.message
    assert fence.own()["user.slice"] == nodes()
    assert "user.slice" not in machine.ledger.touched.fence


def test_who_is_in_the_root_group(machine: Machine, fence: FakeFence) -> None:
    fence.loose_ones = Loose(kernel_threads=90)
    assert keep_fence(machine, FENCED) == []

    one = Process(pid=7, start_time=1, name="sh", uid=0, ppid=1)
    fence.loose_ones = Loose(
        processes=(one, *(replace(one, pid=pid) for pid in (8, 9, 10))), kernel_threads=90
    )
    (alert,) = keep_fence(machine, FENCED)

    assert (alert.code, alert.subject) == (AlertCode.FENCE_LOOSE, "root group")
    assert alert.message == (
        "4 processes may use node 2: 7 (sh), 8 (sh), 9 (sh); so may 90 threads of the kernel"
    )
    assert keep_fence(machine, nodes()) == []


def test_a_unit_that_is_attached_to_a_zone_is_no_outsider(
    machine: Machine, fence: FakeFence
) -> None:
    keep_fence(machine, FENCED)
    machine.ledger.unit_confined("system.slice", nodes(0, 1))
    fence.confine("system.slice", FENCED)

    assert keep_fence(machine, FENCED) == []
    assert keep_fence(machine, nodes()) == []
    assert fence.own()["system.slice"] == FENCED

    machine.ledger.unit_lifted("system.slice")
    fence.confine("system.slice", nodes(0, 1))
    assert keep_fence(machine, nodes()) == []
    assert fence.own()["system.slice"] == nodes()


def test_where_nobody_can_be_kept_off(world: World) -> None:
    machine = world.machine()

    assert about(keep_fence(machine, FENCED)) == [("fence-broken", "zones")]
    assert keep_fence(machine, nodes()) == []
    with pytest.raises(Unsupported):
        check_fence(machine, FENCED)


def test_the_daemons_own_memory_stays_off_too(machine: Machine) -> None:
    kept: list[frozenset[int]] = []

    class Own:
        def keep_to(self, nodes: frozenset[int]) -> None:
            kept.append(nodes)

    own: Any = Own()
    memory: OwnMemory = own
    machine.own_memory = memory

    keep_fence(machine, FENCED)
    keep_fence(machine, nodes())

    assert kept == [nodes(0, 1), nodes()]


def test_it_tells_whoever_watches(machine: Machine) -> None:
    stands: list[bool] = []
    machine.fence_changed = lambda: stands.append(bool(machine.ledger.touched.fence))

    keep_fence(machine, FENCED)
    keep_fence(machine, FENCED)
    keep_fence(machine, nodes())
    keep_fence(machine, nodes())

    assert stands == [True, True, False]


class Killed(BaseException):
    """The end of the daemon."""


@pytest.mark.parametrize("wanted_after", [True, False])
def test_killed_at_any_point_the_next_start_sets_it_right(
    world: World,
    fence: FakeFence,
    monkeypatch: pytest.MonkeyPatch,
    wanted_after: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    before = fence.own()
    left = 0

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    def save(path: Path, data: Any) -> None:
        tick()
        save_json(path, data)
        tick()

    def call(method: str, *_: object) -> None:
        if method != "outsiders":
            tick()

    monkeypatch.setattr(ledger, "save_json", save)
    monkeypatch.setattr(fence.failures, "call", call)
    for point in range(1, 100):
        left = point
        try:
            keep_fence(machine_of(world, fence), FENCED)
            keep_fence(machine_of(world, fence), nodes())
        except Killed:
            pass
        else:
            break
        left = 0
        fresh = machine_of(world, fence)
        if wanted_after:
            assert keep_fence(fresh, FENCED) == []
            assert fence.own() == {"system.slice": nodes(0, 1), "db.slice": nodes(1)}
        assert keep_fence(fresh, nodes()) == []
        assert fence.own() == before
        assert fresh.ledger.touched.fence == {}
    assert point > 12
