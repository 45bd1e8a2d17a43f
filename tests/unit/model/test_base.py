# SPDX-License-Identifier: Apache-2.0
"""Base zones as values."""

from __future__ import annotations

import pytest

from zoned.model.base import BaseSource, BaseZone, DaxDevice, DaxMode, granules
from zoned.model.topology import Node

MIB = 1 << 20


@pytest.mark.parametrize(
    ("sources", "main", "removable"),
    [
        ({}, BaseSource.UNKNOWN, None),
        ({BaseSource.UNKNOWN: 2}, BaseSource.UNKNOWN, None),
        ({BaseSource.BOOT: 1, BaseSource.DIMM: 9}, BaseSource.BOOT, False),
        ({BaseSource.KMEM: 1, BaseSource.DIMM: 2}, BaseSource.DIMM, True),
        ({BaseSource.CXL: 1}, BaseSource.CXL, True),
    ],
)
def test_source(sources: dict[BaseSource, int], main: BaseSource, removable: object) -> None:
    zone = BaseZone(node=1, sources=sources)
    assert zone.source is main
    assert zone.removable is removable


def test_only_whole_blocks_of_a_region_count() -> None:
    device = DaxDevice(
        name="dax0.0",
        size=None,
        node=1,
        mode=DaxMode.DEVDAX,
        ranges=((127 * MIB, 258 * MIB), (1024 * MIB, 127 * MIB), (2048 * MIB, 128 * MIB)),
    )
    assert device.blocks(128 * MIB) == {1, 2, 16}


def node(number: int, *distances: int) -> Node:
    return Node(id=number, distances=dict(enumerate(distances)))


def test_whole_nodes_are_no_granules() -> None:
    assert granules([node(0, 10, 20), node(1, 20, 10)]) == {}
    assert granules([node(0, 10)]) == {}
    assert granules([Node(id=0)]) == {}


def test_granules() -> None:
    found = granules([node(0, 10, 10, 21), node(1, 10, 10, 21), node(2, 21, 21, 10)])
    assert found == {0: {0, 1}, 1: {0, 1}}
