# SPDX-License-Identifier: Apache-2.0
"""What nodes can take, and a refusal with its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import NODES, write
from tests.unit.fakes import GIB, MIB, make_world, started
from zoned.engine.migration.room import promised, refuse_without_room, rooms
from zoned.errors import NoRoom
from zoned.model.migration import NodeRoom
from zoned.model.zone import Backing, Group, Limits, Zone, ZoneSpec

if TYPE_CHECKING:
    from pathlib import Path


def zone(name: str, shares: dict[int, int], backing: Backing = Backing.RESERVE) -> Zone:
    spec = ZoneSpec(name=name, size=sum(shares.values()), backing=backing)
    return Zone(spec=spec, shares=shares, cpus=None)


def group(name: str, by_node: dict[int, int]) -> Group:
    return Group(zone=name, path=f"/zone/{name}", limits=Limits(), by_node=by_node)


def test_what_is_promised_and_not_used_yet() -> None:
    zones = [
        zone("a", {0: GIB, 1: GIB}),
        zone("b", {1: 2 * GIB}),
        zone("c", {1: GIB}),
        zone("d", {1: 9 * GIB}, Backing.LIMIT),
    ]
    groups = {"a": group("a", {0: 2 * GIB}), "b": group("b", {1: GIB, 3: 5})}
    assert promised(zones, groups) == {0: 0, 1: GIB + GIB + GIB}


def test_rooms_of_a_machine(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    engine = started(world)
    for name, node in (("db", "1"), ("web", "1"), ("far", "0")):
        engine.create(ZoneSpec(name=name, size=GIB, nodes=node))
    world.groups.made["web"].by_node = {1: 256 * MIB}
    meminfo = (
        "Node 1 MemFree: 2097152 kB\nNode 1 Active(file): 1024 kB\nNode 1 Inactive(file): 1024 kB"
        "\nNode 1 Dirty: 512 kB"
    )
    write(tmp_path, {f"{NODES}/node1/meminfo": meminfo})
    (found,) = rooms(engine.machine, [1], own=("db",))
    assert found == NodeRoom(
        node=1, free=2 * GIB, reclaimable=2 * MIB - MIB // 2, promised=768 * MIB
    )
    assert found.room == 2 * GIB + 2 * MIB - MIB // 2 - 768 * MIB
    first, second = rooms(engine.machine, [1, 0])
    assert (first.node, first.room) == (0, 0)
    assert second.promised == GIB + 768 * MIB
    assert rooms(engine.machine, []) == ()


def test_what_fits_is_not_refused() -> None:
    room = NodeRoom(node=1, free=3 * MIB, reclaimable=2 * MIB, promised=MIB)
    refuse_without_room("it", 4 * MIB, [room])
    refuse_without_room("it", 0, [])
    refuse_without_room("it", 8 * MIB, [room, room])
    # What one node lacks is not taken from what another has.
    poor = NodeRoom(node=2, free=0, reclaimable=0, promised=9 * MIB)
    refuse_without_room("it", 4 * MIB, [room, poor])


def test_hugetlb_pages_take_pages_of_the_pools_first() -> None:
    room = NodeRoom(node=1, free=3 * MIB, reclaimable=0, promised=0, pool=8 * MIB)
    refuse_without_room("it", 11 * MIB, [room], huge=8 * MIB)
    refuse_without_room("it", 11 * MIB, [room], huge=10 * MIB)
    for size, huge in ((11 * MIB + 1, 8 * MIB), (11 * MIB, 7 * MIB), (4 * MIB, 0)):
        with pytest.raises(NoRoom):
            refuse_without_room("it", size, [room], huge=huge)


def test_a_refusal_gives_the_numbers() -> None:
    found = [
        NodeRoom(node=2, free=3 * MIB, reclaimable=2 * MIB, promised=MIB),
        NodeRoom(node=3, free=MIB, reclaimable=0, promised=5 * MIB),
    ]
    with pytest.raises(NoRoom) as error:
        refuse_without_room("move zone db to node 2-3", 6 * MIB, iter(found))
    assert error.value.message.startswith("move zone db to node 2-3: 6MiB have")
    assert error.value.message.endswith(
        "have to move to node 2-3, which can take 4MiB"
        " (node 2: 3MiB free + 2MiB file cache - 1MiB promised to zones = 4MiB;"
        " node 3: 1MiB free + 0B file cache - 5MiB promised to zones = 0B)"
    )
    assert error.value.hint
