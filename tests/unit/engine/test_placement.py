# SPDX-License-Identifier: Apache-2.0
"""Where zones go: on values, and on any values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fakes import GIB
from zoned.engine.admission import Capacity, capacities
from zoned.engine.placement import (
    by_distance,
    chosen_nodes,
    fill_in_order,
    place,
    place_cpus,
    spread_evenly,
)
from zoned.errors import BadList, BadSize, MovableOnly, NoCapacity, UnknownNode, ZonedError
from zoned.model.policy import SystemReserve
from zoned.model.topology import Amount, Node, Topology
from zoned.model.zone import Backing, ZoneSpec

LIMITS = st.dictionaries(st.integers(0, 9), st.integers(0, 1 << 40), min_size=1, max_size=6)


def node(
    number: int,
    gib: int = 4,
    cpus: frozenset[int] | None = None,
    normal: bool | None = True,  # noqa: FBT001, FBT002 - three states, as the model has them
    **distances: int,
) -> Node:
    return Node(
        id=number,
        memory=Amount(total=gib * GIB),
        cpus=frozenset({number}) if cpus is None else cpus,
        has_normal_memory=normal,
        distances={int(other[1:]): distance for other, distance in distances.items()},
    )


LINE = Topology(
    nodes=(
        node(0, 4, n0=10, n1=20, n2=30, n3=40),
        node(1, 8, n0=20, n1=10, n2=20, n3=30),
        node(2, 4, cpus=frozenset(), n0=30, n1=20, n2=10, n3=20),
        node(3, 0, n0=40, n1=30, n2=20, n3=10),
    )
)


def free(topology: Topology = LINE, reserve: int = 0) -> dict[int, Capacity]:
    return capacities(topology, SystemReserve(default=reserve), [])


def spec(size: int, nodes: str | None = None, **more: object) -> ZoneSpec:
    return ZoneSpec(name="db", size=size, nodes=nodes, **more)  # type: ignore[arg-type]


@given(st.integers(1, 1 << 42), LIMITS)
def test_an_even_spread_fits_or_is_refused(size: int, limits: dict[int, int]) -> None:
    shares = spread_evenly(size, limits)
    if size > sum(limits.values()):
        assert shares is None
        return
    assert shares is not None
    assert sum(shares.values()) == size
    assert shares.keys() == limits.keys()
    assert all(0 <= shares[each] <= limits[each] for each in limits)
    # Even: who has less than another has all that fits there, or lacks only the odd bytes.
    most = max(shares.values())
    assert all(shares[each] >= min(limits[each], most - 1) for each in limits)


@given(st.integers(1, 1 << 42), LIMITS)
def test_filling_takes_the_first_that_have_room(size: int, limits: dict[int, int]) -> None:
    order = sorted(limits, reverse=True)
    shares = fill_in_order(size, order, limits)
    assert sum(shares.values()) == min(size, sum(limits.values()))
    full = [each for each in order if each in shares][:-1]
    assert all(shares[each] == limits[each] for each in full)
    assert all(shares[each] > 0 for each in shares)


@st.composite
def machines(draw: st.DrawFn) -> Topology:
    numbers = draw(st.sets(st.integers(0, 7), min_size=1, max_size=5))
    return Topology(nodes=tuple(node(each, draw(st.integers(0, 8))) for each in sorted(numbers)))


@given(
    machines(),
    st.integers(1, 40 * GIB),
    st.none() | st.integers(0, 7),
    st.sampled_from([None, "all", "!0", "0-3"]),
    st.sampled_from(Backing),
    st.integers(0, 2 * GIB),
)
def test_any_placement_keeps_its_promises(
    topology: Topology,
    size: int,
    near: int | None,
    nodes: str | None,
    backing: Backing,
    reserve: int,
) -> None:
    capacity = free(topology, reserve)
    try:
        shares = place(spec(size, nodes, backing=backing), topology, capacity, near)
    except (NoCapacity, BadSize, UnknownNode, BadList):
        return
    assert sum(shares.values()) == size
    allowed = topology.memory_nodes if nodes is None else chosen_nodes(nodes, topology)
    assert shares.keys() <= allowed
    kept = reserve if backing.protects else 0
    assert all(share <= max(0, capacity[each].total - kept) for each, share in shares.items())


@pytest.mark.parametrize(
    ("wanted", "near", "shares"),
    [
        (spec(2 * GIB), None, {1: 2 * GIB}),
        (spec(12 * GIB), None, {0: 4 * GIB, 1: 4 * GIB, 2: 4 * GIB}),
        (spec(14 * GIB), None, {0: 4 * GIB, 1: 6 * GIB, 2: 4 * GIB}),
        (spec(2 * GIB, "0"), None, {0: 2 * GIB}),
        (spec(2 * GIB, "0,2"), None, {0: GIB, 2: GIB}),
        (spec(10 * GIB, "0-1"), None, {0: 4 * GIB, 1: 6 * GIB}),
        (spec(3 * GIB, "!1"), None, {0: 3 * GIB // 2, 2: 3 * GIB // 2}),
        (spec(2 * GIB, near="node:2"), 2, {2: 2 * GIB}),
        (spec(6 * GIB, near="node:2"), 2, {1: 2 * GIB, 2: 4 * GIB}),
        (spec(6 * GIB, near="node:3"), 3, {1: 2 * GIB, 2: 4 * GIB}),
    ],
)
def test_placement(wanted: ZoneSpec, near: int | None, shares: dict[int, int]) -> None:
    assert place(wanted, LINE, free(), near) == shares


def test_equal_room_goes_to_the_lowest_node() -> None:
    both = Topology(nodes=(node(5), node(1)))
    assert place(spec(GIB), both, free(both)) == {1: GIB}


@pytest.mark.parametrize(
    ("wanted", "near", "error", "says"),
    [
        (spec(17 * GIB), None, BadSize, "16GiB in all"),
        (spec(5 * GIB, "0"), None, BadSize, "node 0 has 4GiB in all"),
        (spec(GIB, "7"), None, UnknownNode, "node 7 does not exist"),
        (spec(GIB, "3"), None, UnknownNode, "node 3 has no memory"),
        (spec(GIB, "0,3,7"), None, UnknownNode, "node 3,7 does not exist"),
        (spec(GIB, "x"), None, BadList, "no list"),
        (spec(GIB, "!all"), None, BadList, "no list"),
        (spec(17 * GIB, near="node:0"), 0, BadSize, "nodes 0-2 has 16GiB"),
    ],
)
def test_refusals(wanted: ZoneSpec, near: int | None, error: type[ZonedError], says: str) -> None:
    with pytest.raises(error, match=says):
        place(wanted, LINE, free(), near)


def test_what_is_reserved_cannot_be_had_again_but_a_limit_can() -> None:
    capacity = {0: Capacity(node=0, total=4 * GIB, system=GIB, reserved=2 * GIB)}
    one = Topology(nodes=(node(0),))
    with pytest.raises(NoCapacity, match="can give 1GiB"):
        place(spec(GIB + 1), one, capacity)
    assert place(spec(GIB), one, capacity) == {0: GIB}
    assert place(spec(4 * GIB, backing=Backing.LIMIT), one, capacity) == {0: 4 * GIB}


def test_a_zone_needs_some_memory_that_the_kernel_can_use() -> None:
    mixed = Topology(nodes=(node(0), node(1, 8, normal=False), node(2, normal=None)))
    with pytest.raises(MovableOnly, match="node 1 has only movable memory"):
        place(spec(GIB, "1"), mixed, free(mixed))
    assert place(spec(2 * GIB, "0-1"), mixed, free(mixed)) == {0: GIB, 1: GIB}
    assert place(spec(GIB, "2"), mixed, free(mixed)) == {2: GIB}


def test_nodes_that_are_chosen_can_run_programs() -> None:
    mixed = Topology(nodes=(node(0), node(1, 8, normal=False), node(2)))
    assert place(spec(GIB), mixed, free(mixed)) == {0: GIB}
    assert place(spec(6 * GIB), mixed, free(mixed)) == dict.fromkeys(range(3), 2 * GIB)
    movable = Topology(nodes=(node(1, 8, normal=False),))
    with pytest.raises(MovableOnly) as caught:
        place(spec(GIB), movable, free(movable))
    assert caught.value.hint == "take it together with a node that has memory the kernel can use"


@pytest.mark.parametrize(
    ("nodes", "hint"), [("1", "--nodes 1-2"), ("3", "--nodes 2-3"), ("1,3", "--nodes 1-3")]
)
def test_nearest_node_that_would_do_is_named(nodes: str, hint: str) -> None:
    mixed = Topology(
        nodes=(
            node(0),
            node(1, normal=False, n0=30, n1=10, n2=20, n3=30),
            node(2),
            node(3, normal=False, n0=25, n1=30, n2=20, n3=10),
            node(4, 0),
        )
    )
    with pytest.raises(MovableOnly) as caught:
        place(spec(GIB, nodes), mixed, free(mixed))
    assert caught.value.hint.endswith(f"e.g. {hint}")


def test_a_node_that_is_not_known_is_far_from_all() -> None:
    assert by_distance(LINE, 9) == [0, 1, 2]
    assert by_distance(LINE, 2) == [2, 1, 0]
    assert by_distance(Topology(nodes=(node(0), node(1), node(2, n1=10))), 2) == [2, 1, 0]


@pytest.mark.parametrize(
    ("cpus", "nodes", "found"),
    [
        ("local", {0, 1}, {0, 1}),
        ("local", {2}, {1}),
        ("local", {0, 2}, {0, 1}),
        ("none", {0}, None),
        ("0-1", {2}, {0, 1}),
        ("!0", {2}, {1, 3}),
        ("all", {2}, {0, 1, 3}),
    ],
)
def test_cpus(cpus: str, nodes: set[int], found: set[int] | None) -> None:
    expected = None if found is None else frozenset(found)
    assert place_cpus(spec(GIB, cpus=cpus), nodes, LINE) == expected


def test_cpus_that_do_not_exist() -> None:
    with pytest.raises(BadList, match="CPU 2,9 does not exist"):
        place_cpus(spec(GIB, cpus="0,2,9"), {0}, LINE)


def test_cpus_of_a_machine_that_does_not_tell_any() -> None:
    bare = Topology(nodes=(Node(id=0, memory=Amount(total=GIB)),))
    assert place_cpus(spec(GIB), {0}, bare) is None
    assert place_cpus(spec(GIB, cpus="7"), {0}, bare) == frozenset({7})
