# SPDX-License-Identifier: Apache-2.0
"""What devices are near, where recordings have no example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import NODES, add_node, link, write
from zoned.errors import BadInput, UnknownNode, Unsupported
from zoned.kernel.device import near_node
from zoned.kernel.node import read_topology
from zoned.kernel.root import sysroot

if TYPE_CHECKING:
    from pathlib import Path

PCI = "sys/devices/pci0000:00"
VIRTUAL = "sys/devices/virtual"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine with nodes 0 (CPUs 0-3), 1 (4-7) and 2 (none), and three PCI devices."""
    add_node(tmp_path, 0, {"cpulist": "0-3"})
    add_node(tmp_path, 1, {"cpulist": "4-7"})
    add_node(tmp_path, 2, {"cpulist": ""})
    for slot, node, cpus in ((1, "1", "4-7"), (2, "-1", "2-3"), (3, "-1", "0-7"), (4, "7", "4")):
        name = f"0000:00:0{slot}.0"
        write(tmp_path, {f"{PCI}/{name}/numa_node": node, f"{PCI}/{name}/local_cpulist": cpus})
        link(tmp_path, f"sys/bus/pci/devices/{name}", f"../../../devices/pci0000:00/{name}")
    return tmp_path


def near(folder: Path, what: str) -> int:
    root = sysroot(folder)
    return near_node(root, read_topology(root), what)


def netdev(folder: Path, name: str, place: str) -> None:
    (folder / place / "net" / name).mkdir(parents=True)
    link(folder, f"sys/class/net/{name}", f"../../../{place}/net/{name}")


@pytest.mark.parametrize(
    ("what", "node"),
    [
        ("cpu:0", 0),
        ("cpu:7", 1),
        ("node:2", 2),
        ("pci:0000:00:01.0", 1),
        ("pci:00:02.0", 0),
        ("pci:00:04.0", 1),  # numa_node is a node that the machine does not have
    ],
)
def test_answers(folder: Path, what: str, node: int) -> None:
    assert near(folder, what) == node


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("cpu:8", BadInput),
        ("node:3", UnknownNode),
        ("pci:00:03.0", Unsupported),
        ("pci:00:09.0", BadInput),
        ("netdev:nope", BadInput),
        ("cpu:", BadInput),
        ("cpu:-1", BadInput),
        ("cpu:²", BadInput),
        ("node:" + "9" * 5000, BadInput),
        ("pci:../..", BadInput),
        ("netdev:..", BadInput),
        ("block:a/b", BadInput),
        ("block:a\0b", BadInput),
        ("zone:db", BadInput),
        ("", BadInput),
    ],
)
def test_refusals(folder: Path, what: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        near(folder, what)
    assert type(caught.value) is error


def test_a_cpu_that_is_offline_is_near_the_node_it_is_linked_to(folder: Path) -> None:
    link(folder, "sys/devices/system/cpu/cpu9/node1", "../../node/node1")
    assert near(folder, "cpu:9") == 1


def test_a_cpu_of_several_nodes_is_near_the_first(folder: Path) -> None:
    write(folder, {f"{NODES}/node1/cpulist": "0-7"})
    assert near(folder, "cpu:2") == 0


def test_a_network_card_is_where_its_slot_is(folder: Path) -> None:
    netdev(folder, "eth0", f"{PCI}/0000:00:01.0/virtio3")
    assert near(folder, "netdev:eth0") == 1


def test_a_vlan_on_a_bond_is_where_the_cards_are(folder: Path) -> None:
    netdev(folder, "eth0", f"{PCI}/0000:00:01.0")
    netdev(folder, "eth1", f"{PCI}/0000:00:04.0")
    netdev(folder, "bond0", VIRTUAL)
    netdev(folder, "bond0.5", VIRTUAL)
    for lower in ("eth0", "eth1"):
        link(folder, f"{VIRTUAL}/net/bond0/lower_{lower}", f"../../../../class/net/{lower}")
    link(folder, f"{VIRTUAL}/net/bond0.5/lower_bond0", "../bond0")
    assert near(folder, "netdev:bond0.5") == 1


def test_a_bond_of_cards_on_two_nodes_is_near_neither(folder: Path) -> None:
    netdev(folder, "eth0", f"{PCI}/0000:00:01.0")
    netdev(folder, "eth1", f"{PCI}/0000:00:02.0")
    netdev(folder, "bond0", VIRTUAL)
    for lower in ("eth0", "eth1"):
        link(folder, f"{VIRTUAL}/net/bond0/lower_{lower}", f"../../../../class/net/{lower}")
    with pytest.raises(Unsupported):
        near(folder, "netdev:bond0")


def test_a_device_that_lies_on_itself_ends(folder: Path) -> None:
    netdev(folder, "odd", VIRTUAL)
    link(folder, f"{VIRTUAL}/net/odd/lower_odd", ".")
    with pytest.raises(Unsupported):
        near(folder, "netdev:odd")


def test_a_logical_volume_is_where_its_disk_is(folder: Path) -> None:
    (folder / f"{PCI}/0000:00:01.0/nvme/nvme0/nvme0n1").mkdir(parents=True)
    (folder / f"{VIRTUAL}/block/dm-0/slaves").mkdir(parents=True)
    link(
        folder,
        f"{VIRTUAL}/block/dm-0/slaves/nvme0n1",
        "../../../../pci0000:00/0000:00:01.0/nvme/nvme0/nvme0n1",
    )
    link(folder, "sys/class/block/dm-0", "../../devices/virtual/block/dm-0")
    assert near(folder, "block:dm-0") == 1


def test_a_drive_with_several_paths_is_where_its_controllers_are(folder: Path) -> None:
    (folder / f"{PCI}/0000:00:01.0/nvme/nvme0").mkdir(parents=True)
    subsystem = f"{VIRTUAL}/nvme-subsystem/nvme-subsys0"
    (folder / subsystem / "nvme0n1").mkdir(parents=True)
    link(folder, f"{subsystem}/nvme0", "../../../pci0000:00/0000:00:01.0/nvme/nvme0")
    link(folder, f"{subsystem}/nvme0n1/device", "../../nvme-subsys0")
    link(folder, "sys/class/block/nvme0n1", f"../../../{subsystem}/nvme0n1")
    assert near(folder, "block:nvme0n1") == 1
