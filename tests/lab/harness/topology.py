# SPDX-License-Identifier: Apache-2.0
"""Machines as data: what the lab can boot, and how each is said to QEMU.

The words are those of qemu-system-x86_64(1); sizes are in MiB.
"""

from dataclasses import dataclass

from tests.lab.harness.recipe import NEWEST, STOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One NUMA node. `memory` in MiB; 0 makes a memoryless node, there for hotplug."""

    memory: int
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A machine to boot.

    `memory` is its RAM in MiB (the sum of the nodes, where there are nodes). `distances` is the
    whole SLIT table, row by row, or empty for the firmware's default. `slots` and `max_memory`
    (MiB) leave room for DIMMs. `devices`, `machine`, `numa` and `objects` are further arguments
    to the QEMU options of these names, `append` further words of the kernel's command line;
    `kernel` is one of the recipe's. `needs` is a property of a device that not every QEMU has;
    `processor` has further properties of the processors.
    """

    name: str
    cpus: int = 4
    memory: int
    nodes: tuple[Node, ...] = ()
    distances: tuple[tuple[int, ...], ...] = ()
    slots: int = 0
    max_memory: int = 0
    devices: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    numa: tuple[str, ...] = ()
    append: tuple[str, ...] = ()
    kernel: str = STOCK
    needs: tuple[str, str] | None = None
    processor: str = ""

    def __post_init__(self) -> None:
        size = len(self.nodes)
        if self.nodes and sum(node.memory for node in self.nodes) != self.memory:
            msg = f"{self.name}: memory is not the sum of the nodes"
            raise ValueError(msg)
        if self.distances and [len(row) for row in self.distances] != [size] * size:
            msg = f"{self.name}: the distance table is not {size} x {size}"
            raise ValueError(msg)


def qemu_arguments(topology: Topology) -> list[str]:
    """Say `topology` to QEMU; the kernel's command line is not among the arguments."""
    arguments = [
        "-machine",
        ",".join(["q35", *topology.machine]),
        "-smp",
        str(topology.cpus),
        "-m",
        _memory(topology),
    ]
    for value in topology.objects:
        arguments += ["-object", value]
    for number, node in enumerate(topology.nodes):
        arguments += _node(number, node)
    for source, row in enumerate(topology.distances):
        for target, distance in enumerate(row):
            if source != target:
                arguments += ["-numa", f"dist,src={source},dst={target},val={distance}"]
    for value in topology.numa:
        arguments += ["-numa", value]
    for value in topology.devices:
        arguments += ["-device", value]
    return arguments


def _memory(topology: Topology) -> str:
    if not topology.slots:
        return f"{topology.memory}M"
    return f"{topology.memory}M,slots={topology.slots},maxmem={topology.max_memory}M"


def _node(number: int, node: Node) -> list[str]:
    words = [f"node,nodeid={number}", *(f"cpus={cpu}" for cpu in node.cpus)]
    if not node.memory:
        return ["-numa", ",".join(words)]
    backend = f"memory-backend-ram,id=node{number},size={node.memory}M"
    return ["-object", backend, "-numa", ",".join([*words, f"memdev=node{number}"])]


_PLUGGABLE = (
    "edu",
    "pcie-root-port,id=rp1,chassis=1,slot=1",
    "pcie-root-port,id=rp2,chassis=2,slot=2",
)

FOUR_NODES = Topology(
    name="four_nodes",
    memory=4096,
    nodes=(
        Node(memory=1024, cpus=(0,)),
        Node(memory=1024, cpus=(1,)),
        Node(memory=1024, cpus=(2,)),
        Node(memory=1024, cpus=(3,)),
        Node(memory=0),
    ),
    distances=(
        (10, 12, 17, 22, 40),
        (12, 10, 14, 26, 42),
        (17, 14, 10, 31, 44),
        (22, 26, 31, 10, 46),
        (40, 42, 44, 46, 10),
    ),
    slots=8,
    max_memory=16384,
    devices=_PLUGGABLE,
)
"""Four nodes with one CPU and 1 GiB each, and node 4, which has neither until a DIMM comes."""

ONE_NODE = Topology(name="one_node", cpus=2, memory=2048, devices=_PLUGGABLE)
"""A plain machine: nothing about NUMA in its firmware."""

PMEM = Topology(
    name="pmem",
    cpus=2,
    memory=2176,
    # Not the last node: firmware keeps its tables at the end of low memory.
    nodes=(Node(memory=1024, cpus=(0,)), Node(memory=640), Node(memory=512, cpus=(1,))),
    append=("memmap=640M!1024M",),
)
"""Two nodes, and one all of whose memory is a legacy persistent memory region: as device-dax it has
four whole memory blocks of 128 MiB, behind what its label takes. Linux counts nodes with CPUs
first, so that the region's is node 2."""

FAKE_NODES = Topology(
    name="fake_nodes",
    cpus=2,
    memory=2048,
    nodes=(Node(memory=1024, cpus=(0,)), Node(memory=1024, cpus=(1,))),
    devices=("intel-iommu", "edu"),
    append=("numa=fake=4U", "intel_iommu=on"),
)
"""Two nodes, each of which the kernel splits into four, and an IOMMU before the devices."""

LOW_MEMORY = Topology(
    name="low_memory",
    cpus=2,
    memory=1792,
    machine=("max-ram-below-4g=768M",),
    devices=_PLUGGABLE,
    append=("memmap=64M!160M",),
)
"""768 MiB lie low and the rest above 4 GiB, so that the kernel has a low zone to protect, with some
blocks that can go; a legacy persistent memory region lies within 28 bits."""

NEWEST_KERNEL = Topology(
    name="newest_kernel",
    cpus=2,
    memory=2048,
    nodes=(Node(memory=1024, cpus=(0,)), Node(memory=1024, cpus=(1,))),
    devices=_PLUGGABLE,
    append=("cma=128M@0-1G",),
    kernel=NEWEST,
)
"""Two nodes and a kernel with an area for contiguous memory, which Debian's own do not have."""

CXL = Topology(
    name="cxl",
    cpus=2,
    memory=2048,
    nodes=(Node(memory=1024, cpus=(0,)), Node(memory=1024, cpus=(1,))),
    machine=("cxl=on", "cxl-fmw.0.targets.0=cxl.1", "cxl-fmw.0.size=4G"),
    objects=("memory-backend-ram,id=expander,size=512M",),
    devices=(
        "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1",
        "cxl-rp,port=0,bus=cxl.1,id=rp1,chassis=1,slot=1",
        "cxl-type3,bus=rp1,volatile-memdev=expander,id=memory",
    ),
    needs=("cxl-type3", "volatile-memdev"),
    # In a virtual machine Linux makes no regions: it could not flush the host's caches.
    processor="-hypervisor",
)
"""Two nodes, and 512 MiB behind a CXL window, which are a node of their own once they are a region.
QEMU has such memory since 8.1."""

MACHINES = (FOUR_NODES, ONE_NODE, PMEM, FAKE_NODES, LOW_MEMORY, NEWEST_KERNEL, CXL)
TOPOLOGIES = {topology.name: topology for topology in MACHINES}
"""Every machine by its name, as `scripts/lab --topology` and the mark `topology` take it."""
