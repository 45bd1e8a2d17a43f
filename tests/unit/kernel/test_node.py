# SPDX-License-Identifier: Apache-2.0
"""Nodes of machines made of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import MEMORY, NODES, add_block, add_node, link, write
from zoned.errors import MachineError
from zoned.kernel.node import read_topology
from zoned.kernel.root import sysroot
from zoned.model.topology import Access, Amount, BlockCount, HugePages, Node

if TYPE_CHECKING:
    from pathlib import Path


def nodes_of(folder: Path) -> tuple[Node, ...]:
    return read_topology(sysroot(folder)).nodes


def test_an_empty_folder_is_one_node_of_which_nothing_is_known(tmp_path: Path) -> None:
    found = read_topology(sysroot(tmp_path))
    assert found.nodes == (Node(id=0),)
    assert found.block_size is None


def test_a_folder_of_nodes_that_is_empty_is_no_node(tmp_path: Path) -> None:
    (tmp_path / NODES).mkdir(parents=True)
    write(tmp_path, {"proc/meminfo": "MemTotal:      100 kB\nMemFree:       40 kB"})
    assert nodes_of(tmp_path) == (Node(id=0, memory=Amount(total=102400, free=40960)),)


def test_a_node_without_files_is_unknown_in_all(tmp_path: Path) -> None:
    add_node(tmp_path, 3, {})
    assert nodes_of(tmp_path) == (Node(id=3),)


def test_cpus_from_cpuinfo_where_sysfs_has_none(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"proc/cpuinfo": "Processor\t: ARMv7 rev 1\nprocessor\t: 0\nx\t: 9\n\nprocessor\t: 5"},
    )
    assert nodes_of(tmp_path)[0].cpus == frozenset({0, 5})


def test_cpus_from_cpuinfo_as_s390_writes_it(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor 0: version = FF\nprocessor 1: version = FF"})
    assert nodes_of(tmp_path)[0].cpus == frozenset({0, 1})


def test_huge_pages_of_a_machine_without_nodes(tmp_path: Path) -> None:
    write(tmp_path, {"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "8"})
    assert nodes_of(tmp_path)[0].hugepages == (HugePages(size=2 << 20, total=8, free=None),)


def test_huge_pages_are_listed_by_size(tmp_path: Path) -> None:
    add_node(
        tmp_path,
        0,
        {
            "hugepages/hugepages-1048576kB/nr_hugepages": "1",
            "hugepages/hugepages-1048576kB/free_hugepages": "0",
            "hugepages/hugepages-2048kB/nr_hugepages": "8",
            "hugepages/hugepages-2048kB/free_hugepages": "3",
        },
    )
    assert nodes_of(tmp_path)[0].hugepages == (
        HugePages(size=2 << 20, total=8, free=3),
        HugePages(size=1 << 30, total=1, free=0),
    )


def test_columns_of_distance_are_the_online_nodes(tmp_path: Path) -> None:
    write(tmp_path, {f"{NODES}/online": "0,4,9"})
    add_node(tmp_path, 0, {"distance": "10 20 30"})
    add_node(tmp_path, 4, {"distance": "21 10 31"})
    add_node(tmp_path, 9, {"distance": "22 32 10"})
    assert [node.distances for node in nodes_of(tmp_path)] == [
        {0: 10, 4: 20, 9: 30},
        {0: 21, 4: 10, 9: 31},
        {0: 22, 4: 32, 9: 10},
    ]


def test_a_node_that_is_online_and_not_listed_has_its_column(tmp_path: Path) -> None:
    write(tmp_path, {f"{NODES}/online": "0,4,9"})
    add_node(tmp_path, 0, {"distance": "10 20 30"})
    assert nodes_of(tmp_path)[0].distances == {0: 10, 4: 20, 9: 30}


def test_distances_that_fit_no_node_are_unknown(tmp_path: Path) -> None:
    write(tmp_path, {f"{NODES}/online": "0-2"})
    add_node(tmp_path, 0, {"distance": "10 20"})
    assert nodes_of(tmp_path)[0].distances == {}


def test_lists_that_old_kernels_end_with_a_nul(tmp_path: Path) -> None:
    for number in (0, 1):
        add_node(tmp_path, number, {"cpulist": f"{number}"})
    write(tmp_path, {f"{NODES}/has_cpu": "0-1\n\0", f"{NODES}/has_normal_memory": "0\n\0"})
    assert [(n.has_cpu, n.has_normal_memory) for n in nodes_of(tmp_path)] == [
        (True, True),
        (True, False),
    ]


def test_an_empty_list_of_cpus_is_known_to_be_empty(tmp_path: Path) -> None:
    add_node(tmp_path, 0, {"cpulist": "", "cpumap": "ff"})
    assert nodes_of(tmp_path)[0].cpus == frozenset()


def test_a_mask_of_several_words(tmp_path: Path) -> None:
    add_node(tmp_path, 0, {"cpumap": "1,00000000,80000001"})
    assert nodes_of(tmp_path)[0].cpus == frozenset({0, 31, 64})


def test_tiers(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        add_node(tmp_path, number, {})
    tiers = "sys/devices/virtual/memory_tiering"
    write(tmp_path, {f"{tiers}/memory_tier4/nodelist": "0", f"{tiers}/memory_tier22/nodelist": "2"})
    assert [node.tier for node in nodes_of(tmp_path)] == [4, None, 22]


def access(folder: Path, number: int, name: str, files: dict[str, str], near: int) -> None:
    add_node(folder, number, {f"{name}/initiators/{key}": value for key, value in files.items()})
    link(folder, f"{NODES}/node{number}/{name}/initiators/node{near}", f"../../../node{near}")


def test_access_of_cpus_is_preferred(tmp_path: Path) -> None:
    access(tmp_path, 1, "access0", {"read_bandwidth": "9", "read_latency": "9"}, near=7)
    access(tmp_path, 1, "access1", {"read_bandwidth": "100", "write_latency": "80"}, near=0)
    assert nodes_of(tmp_path)[0].access == Access(
        initiators=frozenset({0}), read_bandwidth=100, write_latency=80
    )


def test_access_of_any_initiator_is_second_best(tmp_path: Path) -> None:
    access(tmp_path, 1, "access0", {"write_bandwidth": "9", "read_latency": "0"}, near=7)
    assert nodes_of(tmp_path)[0].access == Access(initiators=frozenset({7}), write_bandwidth=9)


def test_blocks_are_counted_by_state(tmp_path: Path) -> None:
    write(tmp_path, {f"{MEMORY}/block_size_bytes": "8000000"})
    for number in (0, 1, 2):
        add_node(tmp_path, number, {})
    add_block(tmp_path, 0, state="online", zones="none", nodes=(0,))
    add_block(tmp_path, 1, state="offline", zones="Normal Movable", nodes=(0,))
    add_block(tmp_path, 2, state="going-offline", zones="Normal", nodes=(0,))
    add_block(tmp_path, 3, state=None, zones="Normal", nodes=(2,))
    found = read_topology(sysroot(tmp_path))
    assert found.block_size == 128 << 20
    assert [node.blocks for node in found.nodes] == [
        BlockCount(total=3, online=1, offline=1),
        BlockCount(total=0, online=0, offline=0),
        None,
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [("cpulist", "0-x"), ("cpumap", "zz"), ("distance", "10 far")],
)
def test_nonsense_is_an_error_with_path_and_content(tmp_path: Path, name: str, text: str) -> None:
    add_node(tmp_path, 0, {name: text})
    with pytest.raises(MachineError) as caught:
        nodes_of(tmp_path)
    assert name in caught.value.message
    assert text in caught.value.message
