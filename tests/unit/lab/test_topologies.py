# SPDX-License-Identifier: Apache-2.0
"""From a topology to the arguments of QEMU."""

import pytest

from tests.lab.harness.topology import FOUR_NODES, ONE_NODE, Node, Topology, qemu_arguments


def options(topology: Topology, name: str) -> list[str]:
    words = qemu_arguments(topology)
    return [value for key, value in zip(words[::2], words[1::2], strict=True) if key == name]


def test_plain_machine_says_nothing_about_nodes() -> None:
    assert options(ONE_NODE, "-m") == ["2048M"]
    assert options(ONE_NODE, "-smp") == ["2"]
    assert options(ONE_NODE, "-numa") == []
    assert options(ONE_NODE, "-object") == []


def test_four_nodes() -> None:
    numa = options(FOUR_NODES, "-numa")
    assert options(FOUR_NODES, "-m") == ["4096M,slots=8,maxmem=16384M"]
    assert numa[:5] == [
        "node,nodeid=0,cpus=0,memdev=node0",
        "node,nodeid=1,cpus=1,memdev=node1",
        "node,nodeid=2,cpus=2,memdev=node2",
        "node,nodeid=3,cpus=3,memdev=node3",
        "node,nodeid=4",
    ]
    assert options(FOUR_NODES, "-object") == [
        f"memory-backend-ram,id=node{number},size=1024M" for number in range(4)
    ]
    assert numa[5] == "dist,src=0,dst=1,val=12"
    assert len(numa) == 5 + 5 * 4
    assert options(FOUR_NODES, "-device")[0] == "edu"


def test_distances_of_the_four_nodes_tell_them_apart() -> None:
    table = FOUR_NODES.distances
    pairs = [table[a][b] for a in range(5) for b in range(a + 1, 5)]
    assert len(set(pairs)) == len(pairs)
    assert all(table[a][b] == table[b][a] for a in range(5) for b in range(5))
    assert all(table[a][a] == 10 for a in range(5))


def test_what_later_machines_need_can_be_said() -> None:
    machine = Topology(
        name="hmat",
        cpus=3,
        memory=512,
        nodes=(Node(memory=512, cpus=(0, 2)), Node(memory=0, cpus=(1,))),
        machine=("hmat=on",),
        objects=("memory-backend-ram,id=pmem,size=1G",),
        numa=("hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=5",),
        devices=("intel-iommu",),
    )
    assert options(machine, "-machine") == ["q35,hmat=on"]
    assert options(machine, "-object")[0] == "memory-backend-ram,id=pmem,size=1G"
    assert options(machine, "-numa")[:2] == [
        "node,nodeid=0,cpus=0,cpus=2,memdev=node0",
        "node,nodeid=1,cpus=1",
    ]
    assert options(machine, "-numa")[2].startswith("hmat-lb,")
    assert options(machine, "-device") == ["intel-iommu"]


def test_memory_that_is_not_the_sum_of_the_nodes() -> None:
    with pytest.raises(ValueError, match="not the sum"):
        Topology(name="x", memory=1024, nodes=(Node(memory=512),))


@pytest.mark.parametrize("table", [((10,),), ((10, 20), (20,))])
def test_distance_table_of_another_size(table: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="2 x 2"):
        Topology(name="x", memory=2, nodes=(Node(memory=1), Node(memory=1)), distances=table)
