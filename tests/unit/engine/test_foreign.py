# SPDX-License-Identifier: Apache-2.0
"""Foreign bytes: used by members, charged elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_sys import write
from tests.unit.fakes import MIB
from zoned.engine.foreign import foreign_bytes
from zoned.kernel.root import sysroot
from zoned.model.zone import Group, Limits

if TYPE_CHECKING:
    from pathlib import Path


def group(anon: int | None, *pids: int) -> Group:
    return Group(zone="db", path="/zone/db", limits=Limits(), anon=anon, pids=pids)


def process(folder: Path, pid: int, resident: int, alone: int) -> None:
    """Make a process of so much anonymous memory, some of which it shares."""
    write(folder, {f"proc/{pid}/status": f"Tgid:\t{pid}\nRssAnon:\t{resident >> 10} kB"})
    write(folder, {f"proc/{pid}/smaps_rollup": f"Pss_Anon:\t{alone >> 10} kB"})


def test_nothing_is_known(tmp_path: Path) -> None:
    assert foreign_bytes(sysroot(tmp_path), None) is None
    assert foreign_bytes(sysroot(tmp_path), group(None, 7)) is None


@pytest.mark.parametrize(
    ("anon", "resident", "alone", "found"),
    [
        (200 * MIB, 200 * MIB, 200 * MIB, 0),
        (0, 200 * MIB, 200 * MIB, 200 * MIB),
        (50 * MIB, 200 * MIB, 200 * MIB, 150 * MIB),
        (199 * MIB + 1, 200 * MIB, 200 * MIB, 0),
        (199 * MIB, 200 * MIB, 200 * MIB, MIB),
        (100 * MIB, 200 * MIB, 100 * MIB, 0),
        (100 * MIB, 200 * MIB, 101 * MIB, MIB),
        (300 * MIB, 200 * MIB, 200 * MIB, 0),
        # So near that the slow look is not worth it: its answer is not asked for.
        (200 * MIB, 200 * MIB + 4096, 500 * MIB, 0),
    ],
)
def test_what_is_charged_elsewhere(
    tmp_path: Path, anon: int, resident: int, alone: int, found: int
) -> None:
    process(tmp_path, 7, resident, alone)
    assert foreign_bytes(sysroot(tmp_path), group(anon, 7, 99)) == found


def test_members_are_summed(tmp_path: Path) -> None:
    process(tmp_path, 7, 60 * MIB, 50 * MIB)
    process(tmp_path, 8, 60 * MIB, 50 * MIB)
    assert foreign_bytes(sysroot(tmp_path), group(30 * MIB, 7, 8)) == 70 * MIB
