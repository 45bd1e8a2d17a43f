# SPDX-License-Identifier: Apache-2.0
"""Buffers that programs have of reservations: those that are dma-bufs, too."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.fakes import (
    BASE,
    add_dax,
    huge_held,
)
from tests.unit.fake_huge import HUGE
from tests.unit.fake_sys import write
from zoned.engine.dma import leases as leases_module
from zoned.engine.dma import sources as sources_module
from zoned.errors import (
    MachineError,
    Unsupported,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.engine.dma.desk import Desk


def test_dma_buf_of_what_cannot_be_one(desk: Desk, tmp_path: Path) -> None:
    add_dax(desk.machine, tmp_path)
    lease = desk.begin(1, "scsi")
    with pytest.raises(Unsupported, match="rung devdax cannot be a dma-buf"):
        desk.book.hand_out(lease, dmabuf=True)


@pytest.mark.usefixtures("huge")
def test_no_dma_buf_where_the_kernel_would_move_the_memory(desk: Desk, tmp_path: Path) -> None:
    desk.machine.ledger.reserved(replace(huge_held(), blocks=(2,)))
    write(tmp_path, {"proc/kallsyms": "0 T __pfx_memfd_pin_folios\n0 T memfd_pin_folios\n"})
    lease = desk.begin(1)
    with pytest.raises(Unsupported, match="would move their memory"):
        desk.book.hand_out(lease, dmabuf=True)
    assert desk.settle() == (lease.number,)
    write(tmp_path, {"proc/kallsyms": "0 T __pfx_memfd_pin_folios\n0 T other [module]\n"})
    with pytest.raises(Unsupported, match="no dma-bufs here"):
        desk.book.hand_out(desk.begin(1), dmabuf=True)


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("moved", [False, True])
def test_dma_buf_is_of_the_same_pages(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, moved: bool
) -> None:
    lease = desk.begin(2)
    exported: list[int] = []
    file, dmabuf = os.pipe()
    found = (BASE, BASE + (5 if moved else 1) * HUGE)

    def fake_export(_: object, __: int, size: int) -> int:
        exported.append(size)
        return dmabuf

    monkeypatch.setattr(sources_module.HugeSource, "lend", lambda *_: file)
    monkeypatch.setattr(leases_module, "export", fake_export)
    monkeypatch.setattr(leases_module, "addresses", lambda *_: found)
    if moved:
        with pytest.raises(MachineError, match="moved when the kernel pinned it"):
            desk.book.hand_out(lease, dmabuf=True)
    else:
        handed = desk.book.hand_out(lease, dmabuf=True)
        assert (handed.file, handed.dmabuf) == (file, dmabuf)
        handed.close()
    assert exported == [2 * HUGE]
    for each in (file, dmabuf):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(each)


@pytest.mark.usefixtures("huge")
def test_kernel_that_makes_no_dma_buf(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = desk.begin(1)
    file, other = os.pipe()
    os.close(other)
    monkeypatch.setattr(sources_module.HugeSource, "lend", lambda *_: file)
    with pytest.raises(Unsupported, match="no dma-bufs here"):
        desk.book.hand_out(lease, dmabuf=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
