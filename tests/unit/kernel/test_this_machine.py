# SPDX-License-Identifier: Apache-2.0
"""The machine that runs the tests, against lsmem and numactl. Nothing is changed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from zoned.kernel.memory_block import block_size, read_blocks
from zoned.kernel.node import read_topology
from zoned.kernel.root import Root

MIB = 1 << 20


def run(*command: str) -> str:
    """Return what a tool prints, or skip where it is missing or has nothing to say."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def test_blocks_are_those_of_lsmem() -> None:
    columns = "RANGE,SIZE,STATE,BLOCK,NODE,ZONES"
    entries = json.loads(run("lsmem", "-J", "-b", "-a", "-o", columns))["memory"]
    expected = {
        int(entry["block"]): (
            int(entry["range"].partition("-")[0], 16),
            entry["size"],
            entry["state"],
            entry["node"],
            entry["zones"].replace("None", "none").split("/") if entry["zones"] else [],
        )
        for entry in entries
    }
    found = {
        block.id: (block.start, block.size, block.state, block.node, list(block.zones))
        for block in read_blocks(Root())
    }
    assert found == expected


def test_block_size_and_online_memory_are_those_of_lsmem() -> None:
    text = run("lsmem", "-b", "--summary=only")
    numbers = {key.strip(): int(value) for key, value in re.findall(r"(.+):\s+(\d+)", text)}
    size = block_size(Root())
    assert size is not None
    assert size == numbers["Memory block size"]
    counts = [node.blocks for node in read_topology(Root()).nodes if node.blocks]
    assert sum(count.online for count in counts) * size == numbers["Total online memory"]
    assert sum(count.offline for count in counts) * size == numbers["Total offline memory"]


def test_nodes_are_those_of_numactl() -> None:
    # Memory can come and go in a virtual machine, so we look before and after.
    before = read_topology(Root())
    text = run("numactl", "-H")
    after = read_topology(Root())
    if "No NUMA" in text:
        pytest.skip("numactl: no NUMA support here")
    sizes = {int(node): int(size) for node, size in re.findall(r"node (\d+) size: (\d+) MB", text)}
    cpus = {
        int(node): frozenset(map(int, numbers.split()))
        for node, numbers in re.findall(r"node (\d+) cpus:([ \d]*)", text)
    }
    _, _, matrix = text.partition("node distances:\n")
    head, *rows = matrix.strip().splitlines()
    columns = [int(word) for word in head.split()[1:]]
    distances = {
        int(row.partition(":")[0]): dict(
            zip(columns, map(int, row.partition(":")[2].split()), strict=True)
        )
        for row in rows
    }
    assert {node.id: node.cpus for node in before.nodes} == cpus
    assert {node.id: node.distances for node in before.nodes} == distances
    for old, new in zip(before.nodes, after.nodes, strict=True):
        totals = [amount // MIB for amount in (old.memory.total, new.memory.total) if amount]
        assert min(totals, default=0) <= sizes[old.id] <= max(totals, default=0)
