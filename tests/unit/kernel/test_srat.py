# SPDX-License-Identifier: Apache-2.0
"""Where the firmware says that memory can come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_memory import srat
from zoned.errors import MachineError
from zoned.kernel.root import sysroot
from zoned.kernel.srat import Pluggable, read_pluggable

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sys/firmware/acpi/tables/SRAT"
    path.parent.mkdir(parents=True)
    return path


def test_only_what_can_be_plugged_counts(table: Path, tmp_path: Path) -> None:
    table.write_bytes(srat((4 * GIB, 8 * GIB), (64 * GIB, GIB)))
    assert read_pluggable(sysroot(tmp_path)) == (
        Pluggable(start=4 * GIB, size=8 * GIB),
        Pluggable(start=64 * GIB, size=GIB),
    )


@pytest.mark.parametrize(("cut", "left"), [(1, 1), (39, 1), (40, 1), (41, 0), (1000, 0)])
def test_table_that_is_cut_off(table: Path, tmp_path: Path, cut: int, left: int) -> None:
    table.write_bytes(srat((4 * GIB, GIB), (8 * GIB, GIB))[:-cut])
    found = read_pluggable(sysroot(tmp_path)) or ()
    assert [each.start for each in found] == [4 * GIB] * left


def test_structure_without_a_length_ends_it(table: Path, tmp_path: Path) -> None:
    table.write_bytes(srat((4 * GIB, GIB)) + b"\1\0" * 40)
    assert read_pluggable(sysroot(tmp_path)) == (Pluggable(start=4 * GIB, size=GIB),)


def test_none_is_unknown_and_not_nothing(table: Path, tmp_path: Path) -> None:
    assert read_pluggable(sysroot(tmp_path)) is None
    table.write_bytes(srat())
    assert read_pluggable(sysroot(tmp_path)) == ()
    table.unlink()
    table.mkdir()
    with pytest.raises(MachineError, match="SRAT"):
        read_pluggable(sysroot(tmp_path))


def test_edges_of_a_range() -> None:
    found = Pluggable(start=4 * GIB, size=GIB)
    assert found.has(4 * GIB, 1)
    assert found.has(5 * GIB - 1, 1)
    assert found.has(0, 8 * GIB)
    assert not found.has(5 * GIB, GIB)
    assert not found.has(3 * GIB, GIB)
