# SPDX-License-Identifier: Apache-2.0
"""Recorded machines read as hwloc and lsmem read them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.unit.machines import NAMES, WITH_HWLOC, hwloc, reference
from zoned.errors import Unsupported
from zoned.kernel.device import near_node
from zoned.kernel.memory_block import block_size, numbered, read_blocks
from zoned.kernel.node import read_topology
from zoned.kernel.root import sysroot
from zoned.model.topology import Amount, BlockCount, BlockState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# hwloc leaves nodes out here: those that its own cpuset forbids, and those of a lying firmware.
_FEWER = {"16amd64-8n2c-cpusets": 8, "8em64t-2s2ca2c-buggynuma": 8}


@pytest.mark.parametrize("name", WITH_HWLOC)
def test_nodes_cpus_memory_and_distances_are_those_of_hwloc(
    machine: Callable[[str], Path], name: str
) -> None:
    found = read_topology(sysroot(machine(name)))
    seen = hwloc(name)
    assert seen.nodes
    if name in _FEWER:
        assert len(found.nodes) == _FEWER[name] > len(seen.nodes)
    else:
        assert [node.id for node in found.nodes] == sorted(seen.nodes)
    for number, expected in seen.nodes.items():
        node = found.node(number)
        assert node is not None
        assert node.cpus is not None
        assert node.memory.total is not None
        if node.cpus:
            assert node.cpus - seen.hidden_cpus == expected.cpus
        assert abs(node.memory.total - expected.memory) <= expected.slack
        for other, far in seen.distances.get(number, {}).items():
            assert node.distances[other] == far


def test_distances_were_compared(machine: Callable[[str], Path]) -> None:
    compared = {name: len(hwloc(name).distances) for name in WITH_HWLOC}
    assert compared == {
        "16amd64-8n2c-cpusets": 4,
        "256ia64-64n2s2c": 64,
        "2arm-2c": 0,
        "32em64t-2n8c+dax+nvme+mic+dimms": 2,
        "40intel64-4n10c+pci-conflicts": 4,
        "48amd64-4pa2n6c-sparse": 8,
        "8em64t-2s2ca2c-buggynuma": 0,
        "fakeheteromemtiers": 7,
    }


def test_memory_only_nodes(machine: Callable[[str], Path]) -> None:
    found = read_topology(sysroot(machine("fakeheteromemtiers")))
    seen = hwloc("fakeheteromemtiers")
    cpus = {node.id: node.cpus or frozenset() for node in found.nodes}
    assert {number for number in cpus if not cpus[number]} == {4, 6, 8, 9}
    for node in found.nodes:
        assert node.has_cpu is (node.id < 3)
        assert node.has_normal_memory is (node.id < 2)
        assert node.access is not None
        assert node.access.read_bandwidth == seen.nodes[node.id].bandwidth
        assert node.access.write_bandwidth == seen.nodes[node.id].bandwidth
        # hwloc puts a node where its initiators are, and prints no latency: it is given as 0.
        near = frozenset().union(*(cpus[number] for number in node.access.initiators))
        assert near == seen.nodes[node.id].cpus
        assert node.access.read_latency is node.access.write_latency is None


def test_a_machine_without_nodes_has_one(machine: Callable[[str], Path]) -> None:
    found = read_topology(sysroot(machine("2arm-2c")))
    (node,) = found.nodes
    assert node.id == 0
    assert node.cpus == frozenset({0, 1})
    assert node.memory == Amount(total=280840 * 1024, free=250460 * 1024)
    assert node.distances == {}
    assert (node.has_cpu, node.has_normal_memory, node.tier, node.access) == (None,) * 4
    assert (node.hugepages, node.blocks, found.block_size) == ((), None, None)


def test_lying_tables_are_passed_on(machine: Callable[[str], Path]) -> None:
    found = read_topology(sysroot(machine("8em64t-2s2ca2c-buggynuma")))
    for node in found.nodes:
        assert node.cpus == frozenset(range(8))
        assert set(node.distances.values()) == {10}
        assert node.memory.total is not None
        assert node.has_normal_memory is True
        assert node.has_cpu is None, "an empty list of nodes with CPUs cannot be true"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_recorded_is_unknown(machine: Callable[[str], Path], name: str) -> None:
    folder = machine(name)
    found = read_topology(sysroot(folder))
    if not (folder / "sys/devices/system/memory").exists():
        assert found.block_size is None
        assert read_blocks(sysroot(folder)) == ()
        assert all(node.blocks is None for node in found.nodes)
    if not (folder / "sys/devices/system/node/has_cpu").exists():
        assert all(node.has_cpu is None for node in found.nodes)
    if not (folder / "proc").exists():
        assert [(node.cpus, node.memory) for node in found.nodes] == [(None, Amount())]
    assert all(node.tier is None for node in found.nodes)


def test_memory_blocks_are_those_of_lsmem(machine: Callable[[str], Path]) -> None:
    folder = machine("lsmem-x86_64-16g")
    expected = _lsmem_json(reference("lsmem-x86_64-16g", ".expected").read_text())
    found = {block.id: block for block in read_blocks(sysroot(folder))}
    assert block_size(sysroot(folder)) == 128 << 20
    seen = 0
    for entry in expected:
        first, _, last = str(entry["block"]).partition("-")
        start, end = (int(part, 16) for part in str(entry["range"]).split("-"))
        assert found[int(first)].start == start
        for number in range(int(first), int(last or first) + 1):
            block = found[number]
            assert block.size == 128 << 20
            assert block.state == entry["state"]
            assert block.node == entry["node"]
            assert block.zones == (str(entry["zones"]).replace("None", "none"),)
            assert start <= block.start < end
            seen += 1
    assert seen == len(found) == 128
    (node,) = read_topology(sysroot(folder)).nodes
    assert node.blocks == BlockCount(total=128, online=128, offline=0)


def _lsmem_json(text: str) -> list[dict[str, object]]:
    _, _, part = text.partition("$ lsmem --json")
    decoded, _ = json.JSONDecoder().raw_decode(part, part.index("{"))
    entries: list[dict[str, object]] = decoded["memory"]
    return entries


def test_states_are_read_from_the_recording(machine: Callable[[str], Path]) -> None:
    folder = machine("lsmem-x86_64-16g") / "sys/devices/system/memory"
    blocks = read_blocks(sysroot(machine("lsmem-x86_64-16g")))
    for block in blocks:
        path = folder / f"memory{block.id}"
        assert block.state == BlockState((path / "state").read_text().strip())
        assert block.start == int((path / "phys_index").read_text(), 16) * (128 << 20)


@pytest.mark.parametrize(
    ("what", "node"),
    [
        ("cpu:7", 0),
        ("cpu:8", 1),
        ("node:1", 1),
        ("pci:0000:80:02.0", 1),
        ("pci:82:00.0", 1),
        ("pci:0000:00:02.0", 0),  # numa_node is -1, local_cpulist 0-3
        ("netdev:eth0", 0),
        ("netdev:ib0", 1),
        ("block:nvme0n1", 0),
        ("block:nvme0n1p1", 0),
        ("block:sda", 0),  # its controller knows
        ("block:pmem1", 1),
    ],
)
def test_devices_are_near_the_node_that_the_kernel_gives(
    machine: Callable[[str], Path], what: str, node: int
) -> None:
    root = sysroot(machine("32em64t-2n8c+dax+nvme+mic+dimms"))
    assert near_node(root, read_topology(root), what) == node


def test_every_pci_device_has_an_answer_or_none(machine: Callable[[str], Path]) -> None:
    root = sysroot(machine("32em64t-2n8c+dax+nvme+mic+dimms"))
    topology = read_topology(root)
    answers = {0: 0, 1: 0, None: 0}
    for device in (root.sys / "bus/pci/devices").iterdir():
        try:
            answers[near_node(root, topology, f"pci:{device.name}")] += 1
        except Unsupported:
            answers[None] += 1
    # 28 and 16 say so, 93 say -1; of these only 0000:00:02.0 has CPUs of one node.
    assert answers == {0: 29, 1: 16, None: 92}


def test_a_device_that_is_near_all_nodes_is_near_none(machine: Callable[[str], Path]) -> None:
    root = sysroot(machine("40intel64-4n10c+pci-conflicts"))
    with pytest.raises(Unsupported):
        near_node(root, read_topology(root), "pci:0000:01:00.0")


def test_the_nodes_are_those_of_the_folder(machine: Callable[[str], Path]) -> None:
    folder = machine("48amd64-4pa2n6c-sparse")
    listed = set(numbered(folder / "sys/devices/system/node", re.compile(r"node(\d+)")))
    found = read_topology(sysroot(folder))
    assert {node.id for node in found.nodes} == listed == {0, 1, 2, 33, 34, 45, 72, 73}
