# SPDX-License-Identifier: Apache-2.0
"""What nodes can give, and the numbers in a refusal."""

from __future__ import annotations

import pytest

from tests.unit.fakes import GIB
from zoned.engine.admission import Capacity, capacities, refuse, room
from zoned.errors import BadSize, NoCapacity
from zoned.model.policy import Percent, SystemReserve
from zoned.model.topology import Amount, Node, Topology
from zoned.model.zone import Backing, Zone, ZoneSpec


def zone(name: str, shares: dict[int, int], backing: Backing = Backing.RESERVE) -> Zone:
    spec = ZoneSpec(name=name, size=sum(shares.values()), backing=backing)
    return Zone(spec=spec, shares=shares, cpus=None)


def topology(**totals: int | None) -> Topology:
    return Topology(
        nodes=tuple(
            Node(id=int(name[1:]), memory=Amount(total=total)) for name, total in totals.items()
        )
    )


def test_reserves_are_summed_by_node_and_limits_are_not() -> None:
    zones = [
        zone("a", {0: GIB, 1: GIB}),
        zone("b", {1: 2 * GIB}),
        zone("c", {0: 3 * GIB}, Backing.LIMIT),
    ]
    found = capacities(topology(n0=8 * GIB, n1=4 * GIB), SystemReserve(default=GIB), zones)
    assert found == {
        0: Capacity(node=0, total=8 * GIB, system=GIB, reserved=GIB),
        1: Capacity(node=1, total=4 * GIB, system=GIB, reserved=3 * GIB),
    }
    assert (found[0].available, found[1].available) == (6 * GIB, 0)


@pytest.mark.parametrize("total", [None, 0])
def test_a_node_without_memory_has_no_capacity(total: int | None) -> None:
    assert capacities(topology(n0=total), SystemReserve(), []) == {}


@pytest.mark.parametrize(
    ("reserve", "kept"),
    [
        (SystemReserve(), 858993460),
        (SystemReserve(default=0), 0),
        (SystemReserve(default=99 * GIB), 16 * GIB),
        (SystemReserve(default=GIB, nodes={0: 5}), 5),
        (SystemReserve(default=GIB, nodes={1: 5}), GIB),
        (SystemReserve(default=Percent(hundredths=5000)), 8 * GIB),
    ],
)
def test_what_is_kept_for_the_system(reserve: SystemReserve, kept: int) -> None:
    assert capacities(topology(n0=16 * GIB), reserve, [])[0].system == kept


def test_huge_pages_for_devices_are_nobody_elses() -> None:
    reserve = SystemReserve(default=GIB)
    zones = [zone("a", {0: GIB})]
    found = capacities(topology(n0=8 * GIB), reserve, zones, devices={0: 2 * GIB, 7: GIB})
    assert (found[0].reserved, found[0].available) == (3 * GIB, 4 * GIB)


def test_room_is_never_negative_and_a_limit_may_take_all() -> None:
    full = {0: Capacity(node=0, total=4 * GIB, system=GIB, reserved=5 * GIB)}
    assert room(full, Backing.RESERVE) == {0: 0}
    assert room(full, Backing.LIMIT) == {0: 4 * GIB}


def test_a_refusal_gives_the_sum_for_every_node() -> None:
    capacity = {
        0: Capacity(node=0, total=4 * GIB, system=GIB, reserved=2 * GIB),
        1: Capacity(node=1, total=4 * GIB, system=GIB, reserved=9 * GIB),
    }
    error = refuse("db", 3 * GIB, [1, 0], capacity, Backing.RESERVE)
    assert isinstance(error, NoCapacity)
    assert error.message == (
        "zone db asks for 3GiB, but nodes 0-1 can give 1GiB"
        " (node 0: 4GiB total - 1GiB system reserve - 2GiB reserved = 1GiB;"
        " node 1: 4GiB total - 1GiB system reserve - 9GiB reserved = 0B)"
    )
    assert error.hint


def test_a_size_above_all_that_the_nodes_have_is_a_bad_size() -> None:
    capacity = {2: Capacity(node=2, total=4 * GIB, system=0, reserved=0)}
    error = refuse("db", 4 * GIB + 1, [2], capacity, Backing.LIMIT)
    assert isinstance(error, BadSize)
    assert "node 2 has 4GiB in all" in error.message
