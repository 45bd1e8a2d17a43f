# SPDX-License-Identifier: Apache-2.0
"""Where the memory of each node is from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_memory import BLOCK, FakeMemory
from tests.unit.fake_sys import NODES, add_node, write
from tests.unit.machines import NAMES
from zoned.kernel.base_zones import read_base_zones
from zoned.kernel.node import read_topology
from zoned.kernel.root import sysroot
from zoned.model.base import BaseSource, granules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IOMEM = f"""\
00001000-{8 * BLOCK - 1:08x} : System RAM
{8 * BLOCK:08x}-{12 * BLOCK - 1:08x} : System RAM
{12 * BLOCK:08x}-{16 * BLOCK - 1:08x} : dax0.0
  {12 * BLOCK:08x}-{16 * BLOCK - 1:08x} : System RAM (kmem)
{16 * BLOCK:08x}-{20 * BLOCK - 1:08x} : virtio0
  {16 * BLOCK:08x}-{18 * BLOCK - 1:08x} : System RAM (virtio_mem)
{20 * BLOCK:08x}-{24 * BLOCK - 1:08x} : CXL Window 0
  {20 * BLOCK:08x}-{24 * BLOCK - 1:08x} : System RAM (kmem)
"""
PLUGGABLE = (8 * BLOCK, 4 * BLOCK)


@pytest.fixture
def memory(tmp_path: Path) -> FakeMemory:
    found = FakeMemory(tmp_path)
    for node in range(5):
        add_node(tmp_path, node, {"meminfo": f"Node {node} MemTotal: 1024 kB", "distance": ""})
    found.tell(IOMEM, PLUGGABLE)
    return found


def sources(memory: FakeMemory) -> dict[int, str]:
    return {zone.node: zone.source for zone in read_base_zones(sysroot(memory.folder))}


def test_each_source_is_recognised(memory: FakeMemory) -> None:
    memory.add(0, 0, 7, zone="Normal")
    memory.add(1, 8, 9)
    memory.add(2, 12, zone="Movable")
    memory.add(3, 17)
    memory.add(4, 20)
    assert sources(memory) == {0: "boot", 1: "dimm", 2: "kmem", 3: "virtio-mem", 4: "cxl"}
    zones = read_base_zones(sysroot(memory.folder))
    assert [zone.removable for zone in zones] == [False, True, True, True, True]
    assert zones[0].total == 1 << 20
    assert [block.id for block in zones[1].offline] == [8, 9]


def test_memory_that_was_added_to_a_node_of_the_start(memory: FakeMemory) -> None:
    memory.add(0, 0, zone="Normal")
    memory.add(0, 8, 9, 10)
    (zone, *_) = read_base_zones(sysroot(memory.folder))
    assert zone.sources == {BaseSource.BOOT: 1, BaseSource.DIMM: 3}
    assert zone.source is BaseSource.BOOT
    assert zone.removable is False


@pytest.mark.parametrize("missing", ["proc/iomem", "sys/firmware/acpi/tables/SRAT"])
def test_what_is_not_told_is_unknown(memory: FakeMemory, missing: str) -> None:
    memory.add(0, 0, zone="Normal")
    memory.add(1, 8)
    (memory.folder / missing).unlink()
    assert sources(memory)[0] == sources(memory)[1] == "unknown"
    assert read_base_zones(sysroot(memory.folder))[0].removable is None


def test_block_without_memory_below_it(memory: FakeMemory) -> None:
    memory.add(0, 30)
    assert sources(memory)[0] == "unknown"


def test_granules_of_a_split_node(tmp_path: Path) -> None:
    rows = ("10 10 20", "10 10 20", "20 20 10")
    for node, row in enumerate(rows):
        add_node(tmp_path, node, {"distance": row, "meminfo": ""})
    write(tmp_path, {f"{NODES}/online": "0-2"})
    parts = [zone.part_of for zone in read_base_zones(sysroot(tmp_path))]
    assert parts == [{0, 1}, {0, 1}, set()]


@pytest.mark.parametrize("name", NAMES)
def test_recorded_machines(machine: Callable[[str], Path], name: str) -> None:
    root = sysroot(machine(name))
    topology = read_topology(root)
    zones = read_base_zones(root)
    assert [zone.node for zone in zones] == [node.id for node in topology.nodes]
    for zone, node in zip(zones, topology.nodes, strict=True):
        if node.blocks is not None:
            assert len(zone.blocks) == node.blocks.total
            assert len(zone.online) == node.blocks.online == len(zone.kernel) + len(zone.movable)
            assert len(zone.offline) == node.blocks.offline
    # One was recorded with a table that says 10 everywhere; on the others nodes are whole.
    parts = granules(topology.nodes)
    if name == "8em64t-2s2ca2c-buggynuma":
        assert set(parts.values()) == {frozenset(range(8))}
    else:
        assert not parts
