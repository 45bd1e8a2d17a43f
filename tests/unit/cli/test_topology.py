# SPDX-License-Identifier: Apache-2.0
"""`zonectl topology` and `zonectl blocks list`, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner

from tests.unit.fake_sys import MEMORY, NODES, add_block, add_node, link, write
from tests.unit.machines import NAMES, reference
from zoned.cli.block_tables import blocks_data
from zoned.cli.blocks import blocks
from zoned.cli.talk import Session
from zoned.cli.topology import topology
from zoned.errors import MachineError
from zoned.kernel.memory_block import read_blocks
from zoned.kernel.node import read_topology
from zoned.kernel.root import Root, sysroot

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

MIB = 1 << 20


def run(command: click.Command, *arguments: str) -> str:
    nobody = Session(socket=Path("/nowhere/io.zoned"))
    result = CliRunner().invoke(command, arguments, obj=nobody, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A machine of two nodes that has everything; node 1 has memory only."""
    write(
        tmp_path,
        {
            f"{MEMORY}/block_size_bytes": "8000000",
            f"{NODES}/online": "0-1",
            f"{NODES}/has_cpu": "0",
            f"{NODES}/has_normal_memory": "0",
            "sys/devices/virtual/memory_tiering/memory_tier4/nodelist": "0",
            "sys/devices/virtual/memory_tiering/memory_tier22/nodelist": "1",
        },
    )
    meminfo = "Node {0} MemTotal:  {1} kB\nNode {0} MemFree:  {2} kB\nNode {0} MemUsed: 1 kB"
    huge = "hugepages/hugepages-2048kB"
    add_node(
        tmp_path,
        0,
        {
            "cpulist": "0-3",
            "distance": "10 20",
            "meminfo": meminfo.format(0, 524288, 262144),
            f"{huge}/nr_hugepages": "8",
            f"{huge}/free_hugepages": "6",
        },
    )
    add_node(
        tmp_path,
        1,
        {
            "cpulist": "",
            "distance": "20 10",
            "meminfo": meminfo.format(1, 131072, 131072),
            "access0/initiators/read_bandwidth": "100",
            "access0/initiators/write_bandwidth": "50",
            "access0/initiators/read_latency": "300",
            "access0/initiators/write_latency": "0",
        },
    )
    link(tmp_path, f"{NODES}/node1/access0/initiators/node0", "../../../node0")
    for number in (0, 1, 2):
        add_block(tmp_path, number, state="online", zones="DMA32", nodes=(0,))
    add_block(tmp_path, 3, state="offline", zones="DMA32 Movable", nodes=(0,))
    add_block(tmp_path, 8, state="online", zones="Movable", nodes=(1,))
    add_block(tmp_path, 10, state="online", zones="Movable", nodes=(1,))
    return tmp_path


def test_json_of_a_machine_that_has_everything(folder: Path) -> None:
    assert json.loads(run(topology, "--sysroot", str(folder), "--json")) == {
        "block_size": 128 * MIB,
        "nodes": [
            {
                "id": 0,
                "cpus": "0-3",
                "distances": {"0": 10, "1": 20},
                "memory": {"total": 512 * MIB, "free": 256 * MIB},
                "has_cpu": True,
                "has_normal_memory": True,
                "tier": 4,
                "access": None,
                "hugepages": [{"size": 2 * MIB, "total": 8, "free": 6}],
                "blocks": {"total": 4, "online": 3, "offline": 1},
            },
            {
                "id": 1,
                "cpus": "",
                "distances": {"0": 20, "1": 10},
                "memory": {"total": 128 * MIB, "free": 128 * MIB},
                "has_cpu": False,
                "has_normal_memory": False,
                "tier": 22,
                "access": {
                    "initiators": [0],
                    "read_bandwidth": 100,
                    "write_bandwidth": 50,
                    "read_latency": 300,
                    "write_latency": None,
                },
                "hugepages": [],
                "blocks": {"total": 2, "online": 2, "offline": 0},
            },
        ],
    }


def test_table_of_a_machine_that_has_everything(folder: Path) -> None:
    lines = run(topology, "--sysroot", str(folder)).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "NODE CPUS TOTAL FREE KERNEL BLOCKS HUGEPAGES TIER READ MiB/s LATENCY ns",
        "0 0-3 512MiB 256MiB yes 3/4 6/8 of 2MiB 4 - -",
        "1 none 128MiB 128MiB no 2/2 - 22 100 300",
        "",
        "distances",
        "NODE 0 1",
        "0 10 20",
        "1 20 10",
        "",
        "memory blocks of 128MiB",
    ]


def test_json_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    assert json.loads(run(topology, "--sysroot", str(tmp_path), "-o", "json")) == {
        "block_size": None,
        "nodes": [
            {
                "id": 0,
                "cpus": None,
                "distances": {},
                "memory": {"total": None, "free": None},
                "has_cpu": None,
                "has_normal_memory": None,
                "tier": None,
                "access": None,
                "hugepages": [],
                "blocks": None,
            }
        ],
    }
    heads, row = run(topology, "--sysroot", str(tmp_path)).splitlines()
    assert row.split() == ["0", *"------"]
    assert heads.split()[-1] == "HUGEPAGES"


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_machine_prints(machine: Callable[[str], Path], name: str) -> None:
    place = str(machine(name))
    data = json.loads(run(topology, "--sysroot", place, "--json"))
    assert yaml.safe_load(run(topology, "--sysroot", place, "-o", "yaml")) == data
    found = read_topology(sysroot(machine(name)))
    assert [node["id"] for node in data["nodes"]] == [node.id for node in found.nodes]
    rows = run(topology, "--sysroot", place).splitlines()[1 : len(found.nodes) + 1]
    assert [int(row.split()[0]) for row in rows] == [node.id for node in found.nodes]
    listed = json.loads(run(blocks, "list", "--sysroot", place, "--json"))
    assert len(listed) == (128 if name.startswith("lsmem") else 0)


def test_this_machine_without_sysroot() -> None:
    data = json.loads(run(topology, "--json"))
    nodes = read_topology(Root()).nodes
    assert [node["id"] for node in data["nodes"]] == [node.id for node in nodes]


def test_blocks_in_json(folder: Path) -> None:
    listed = json.loads(run(blocks, "list", "--sysroot", str(folder), "--json"))
    assert [entry["id"] for entry in listed] == [0, 1, 2, 3, 8, 10]
    size = 128 * MIB
    assert listed[2] == {
        "id": 2,
        "start": 2 * size,
        "size": size,
        "state": "online",
        "zones": ["DMA32"],
        "node": 0,
        "owner": "base",
    }
    assert listed[3] == {
        "id": 3,
        "start": 3 * size,
        "size": size,
        "state": "offline",
        "zones": ["DMA32", "Movable"],
        "node": 0,
        "owner": None,
    }


def test_owners_that_the_daemon_knows(folder: Path) -> None:
    listed = blocks_data(read_blocks(sysroot(folder)), {3: "parked", 8: "db"})
    owners = {entry["id"]: entry["owner"] for entry in listed}
    assert owners == {0: "base", 1: "base", 2: "base", 3: "parked", 8: "db", 10: "base"}


def test_neighbours_that_are_alike_are_one_line(folder: Path) -> None:
    heads, *rows = run(blocks, "list", "--sysroot", str(folder)).splitlines()
    assert heads.split() == ["BLOCKS", "RANGE", "SIZE", "STATE", "ZONES", "NODE", "OWNER"]
    assert rows == [
        "0-2     0x0000000000000000-0x0000000017ffffff  384MiB  online   DMA32             0  base",
        "3       0x0000000018000000-0x000000001fffffff  128MiB  offline  DMA32 Movable     0  -",
        "8       0x0000000040000000-0x0000000047ffffff  128MiB  online   Movable           1  base",
        "10      0x0000000050000000-0x0000000057ffffff  128MiB  online   Movable           1  base",
    ]


def test_ranges_of_a_recorded_machine_are_those_of_lsmem(machine: Callable[[str], Path]) -> None:
    text = reference("lsmem-x86_64-16g", ".expected").read_text()
    _, _, part = text.partition("$ lsmem --output RANGE,SIZE,STATE --split STATE\n")
    expected = []
    for line in part.partition("\n\n")[0].splitlines()[1:]:
        words = line.split()
        expected.append((*(int(end, 16) for end in words[0].split("-")), words[2]))
    assert len(expected) == 2

    listed = json.loads(
        run(blocks, "list", "--sysroot", str(machine("lsmem-x86_64-16g")), "--json")
    )
    found: list[tuple[int, int, str]] = []
    for entry in listed:
        start, end = entry["start"], entry["start"] + entry["size"] - 1
        if found and found[-1][1:] == (start - 1, entry["state"]):
            found[-1] = (found[-1][0], end, entry["state"])
        else:
            found.append((start, end, entry["state"]))
    assert found == expected


def test_a_folder_that_is_no_machine_is_a_usage_error(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        for command, words in ((topology, []), (blocks, ["list"])):
            result = CliRunner().invoke(command, [*words, "--sysroot", str(place)])
            assert result.exit_code == 2
            assert f"{place} holds no sys/" in result.stderr
            assert result.stdout == ""


def test_damaged_files_are_one_error(folder: Path) -> None:
    write(folder, {f"{NODES}/node1/cpulist": "0-"})
    with pytest.raises(MachineError, match="node1/cpulist holds '0-'"):
        run(topology, "--sysroot", str(folder))


@pytest.mark.parametrize(("command", "word"), [(topology, "distances"), (blocks, "list")])
def test_help_teaches(command: click.Command, word: str) -> None:
    assert word in run(command, "--help")
