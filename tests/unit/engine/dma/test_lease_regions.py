# SPDX-License-Identifier: Apache-2.0
"""Buffers that programs have of reservations: parts of device-dax regions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.engine.dma.desk import OTHER, Desk
from tests.unit.engine.dma.fakes import (
    DAX,
    DAX_BASE,
    add_dax,
    dax_held,
    map_region,
)
from tests.unit.fake_huge import HUGE
from tests.unit.fake_sys import write
from zoned.engine.dma import sources as sources_module
from zoned.errors import (
    KernelRefused,
    PoolBusy,
)
from zoned.model.dma.offer import Span


def test_region_is_lent_in_parts_and_wiped(desk: Desk, tmp_path: Path) -> None:
    region = add_dax(desk.machine, tmp_path)
    region.write_bytes(b"x" * 16 * HUGE)
    lease = desk.begin(10, "scsi")
    assert lease.segments == (
        Span(DAX_BASE + 4 * HUGE, 2 * HUGE),
        Span(DAX_BASE + (1 << 28), 8 * HUGE),
    )
    handed = desk.book.hand_out(lease)
    desk.files.append(handed.file)
    assert handed.offsets == (4 * HUGE, 8 * HUGE)
    data = region.read_bytes()
    assert data == b"x" * 4 * HUGE + bytes(2 * HUGE) + b"x" * 2 * HUGE + bytes(8 * HUGE)
    assert Path(f"/proc/self/fd/{handed.file}").readlink() == region


def test_part_of_a_region_is_free_when_nobody_maps_it(desk: Desk, tmp_path: Path) -> None:
    region = add_dax(desk.machine, tmp_path)
    lease = desk.alloc(2, "scsi")
    (offset,) = sources_module.source_of(desk.machine, dax_held()).offsets(lease)
    map_region(tmp_path, 5, region, offset + HUGE, HUGE)
    desk.book.end(lease.number)
    assert desk.settle() == ()
    map_region(tmp_path, 5, region, offset + 2 * HUGE, HUGE)
    assert desk.settle() == (lease.number,)


def test_region_is_one_users_at_a_time(desk: Desk, tmp_path: Path) -> None:
    region = add_dax(desk.machine, tmp_path)
    one, two = desk.alloc(1, "scsi"), desk.alloc(1, "scsi", pid=6)
    assert not set(one.segments) & set(two.segments)
    with pytest.raises(PoolBusy, match=r"another user has buffers in dax0\.0"):
        desk.begin(1, "scsi", uid=OTHER)
    for lease in (one, two):
        desk.book.end(lease.number)
    with pytest.raises(PoolBusy, match="another user has buffers"):
        desk.begin(1, "scsi", uid=OTHER)
    desk.settle()
    write(tmp_path, {"sys/module/device_dax/refcnt": "2"})
    with pytest.raises(PoolBusy, match="may still have it open"):
        desk.begin(1, "scsi", uid=OTHER)
    # Whoever had it last may go on.
    again = desk.alloc(1, "scsi")
    desk.book.end(again.number)
    desk.settle()
    write(tmp_path, {"sys/module/device_dax/refcnt": "0"})
    desk.alloc(1, "scsi", uid=OTHER)
    assert desk.machine.ledger.touched.dax_users == {DAX: OTHER}
    assert region.exists()


def test_region_that_cannot_be_opened(desk: Desk, tmp_path: Path) -> None:
    add_dax(desk.machine, tmp_path).unlink()
    lease = desk.begin(1, "scsi")
    with pytest.raises(KernelRefused, match="cannot open"):
        desk.book.hand_out(lease)
    assert desk.settle() == (lease.number,)


def test_region_that_was_made_anew_elsewhere(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_dax(desk.machine, tmp_path)
    lease = desk.alloc(1, "scsi")
    desk.book.end(lease.number)
    for number in (0, 1):
        place = f"sys/bus/dax/devices/{DAX}/mapping{number}"
        write(tmp_path, {f"{place}/start": "0x1000", f"{place}/end": "0x1fff"})
    assert desk.settle() == ()
    assert "dax0.0 is not where it was when lease 1 began" in caplog.text
