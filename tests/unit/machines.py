# SPDX-License-Identifier: Apache-2.0
"""Recorded machines, and what other projects' tools print for them.

The recordings are no part of this repository: they lie in the folder that ZONED_MACHINES names,
or in shared/machines beside the checkout. Where they are missing, tests that need them skip.
"""

from __future__ import annotations

import os
import re
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from zoned.units import parse_size

NAMES = (
    "16amd64-8n2c-cpusets",
    "256ia64-64n2s2c",
    "2arm-2c",
    "32em64t-2n8c+dax+nvme+mic+dimms",
    "40intel64-4n10c+pci-conflicts",
    "48amd64-4pa2n6c-sparse",
    "8em64t-2s2ca2c-buggynuma",
    "fakeheteromemtiers",
    "lsmem-x86_64-16g",
)
WITH_HWLOC = tuple(name for name in NAMES if not name.startswith("lsmem"))

_REPOSITORY = Path(__file__).parents[2]


def folder() -> Path:
    """Return where the recordings lie."""
    return Path(os.environ.get("ZONED_MACHINES") or _REPOSITORY.parent / "shared/machines")


def reference(name: str, *suffixes: str) -> Path:
    """Return the first file of that stem that is there; skip the test where none is."""
    for suffix in suffixes:
        if (path := folder() / f"{name}{suffix}").exists():
            return path
    pytest.skip(f"no recorded machine {name} in {folder()} (set ZONED_MACHINES)")


def unpack(name: str, into: Path) -> Path:
    """Unpack a recording; return the folder that holds its sys/ and proc/."""
    with tarfile.open(reference(name, ".tar.bz2")) as archive:
        # Python 3.11 before 3.11.4 has no filters.
        if hasattr(tarfile, "data_filter"):
            archive.extractall(into, filter="data")
        else:
            archive.extractall(into)
    return next(path.parent for path in into.glob("*/sys"))


@dataclass(frozen=True, kw_only=True)
class SeenNode:
    """What hwloc prints of one node. `slack` is how far its rounding can be off."""

    cpus: frozenset[int]
    memory: int
    slack: int
    bandwidth: int | None = None


@dataclass(kw_only=True)
class Seen:
    """What hwloc prints of one machine."""

    nodes: dict[int, SeenNode] = field(default_factory=dict)
    distances: dict[int, dict[int, int]] = field(default_factory=dict)
    hidden_cpus: frozenset[int] = frozenset()
    """CPUs that hwloc leaves out, because its own cpuset does not allow them"""


def hwloc(name: str) -> Seen:
    """Return what hwloc printed for a machine."""
    path = reference(name, ".console", ".xml")
    text = path.read_text()
    return _from_xml(text) if path.suffix == ".xml" else _from_console(text)


def _bits(mask: str) -> frozenset[int]:
    number = int("".join(word.removeprefix("0x").zfill(8) for word in mask.split(",")), 16)
    return frozenset(bit for bit in range(number.bit_length()) if number >> bit & 1)


def _from_xml(text: str) -> Seen:
    tree = ET.fromstring(text)
    seen = Seen()
    for node in tree.iterfind(".//object[@type='NUMANode']"):
        seen.nodes[int(node.attrib["os_index"])] = SeenNode(
            cpus=_bits(node.attrib["cpuset"]), memory=int(node.attrib["local_memory"]), slack=0
        )
    matrix = tree.find("distances2[@type='NUMANode']")
    assert matrix is not None
    ids = [int(word) for word in str(matrix.findtext("indexes")).split()]
    values = iter(str(matrix.findtext("u64values")).split())
    seen.distances = {row: {column: int(next(values)) for column in ids} for row in ids}
    return seen


def _from_console(text: str) -> Seen:
    lines = text.splitlines()
    logical: dict[int, int] = {}
    seen = Seen()
    for index, line in enumerate(lines):
        if match := re.search(r"NUMANode.* L#(\d+) \(P#(\d+).*?local=(\d+)([MG]iB)", line):
            logical[int(match[1])] = int(match[2])
            seen.nodes[int(match[2])] = SeenNode(
                cpus=_processors_beside(lines, index),
                memory=parse_size(match[3] + match[4]),
                slack=parse_size("0.5" + match[4]),
                bandwidth=_bandwidth(text, match[1]),
            )
        elif match := re.search(r"processors not represented in topology: (\S+)", line):
            seen.hidden_cpus = _bits(match[1])
        elif line.startswith("Relative latency matrix"):
            seen.distances = _matrix(lines[index + 1 :], logical)
    return seen


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _processors_beside(lines: list[str], index: int) -> frozenset[int]:
    """Return the PUs of the object that a node is printed in."""
    top = index
    while _indent(lines[top]) >= _indent(lines[index]):
        top -= 1
    found = set()
    for line in lines[top + 1 :]:
        if _indent(line) <= _indent(lines[top]) or line.startswith(("depth", "Special")):
            break
        if match := re.search(r"PU L#\d+ \(P#(\d+)\)", line):
            found.add(int(match[1]))
    return frozenset(found)


def _bandwidth(text: str, logical: str) -> int | None:
    _, _, part = text.partition("name `ReadBandwidth'")
    match = re.search(rf"NUMANode L#{logical} = (\d+) from", part)
    return int(match[1]) if match else None


def _matrix(lines: list[str], logical: dict[int, int]) -> dict[int, dict[int, int]]:
    columns = [logical[int(word)] for word in lines[0].split()[1:]]
    found = {}
    for line in lines[1 : len(columns) + 1]:
        row, *values = map(int, line.split())
        found[logical[row]] = dict(zip(columns, values, strict=True))
    return found
