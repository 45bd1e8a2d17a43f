# SPDX-License-Identifier: Apache-2.0
"""Pages of buffers that programs have: seen when they are moved."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.dma.fakes import BASE, huge_held
from tests.unit.fake_huge import HUGE
from zoned.engine.dma import lent
from zoned.engine.dma.lent import moved_pages
from zoned.errors import MachineError
from zoned.model.dma.held import Lease
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.engine.dma.conftest import Scene
    from tests.unit.engine.dma.desk import Desk

ME = os.getpid()
TOLD = (BASE, BASE + HUGE, BASE + 4 * HUGE)
MOVED = (
    "1 of 3 pages of a buffer of reservation capture have moved, one from 0x10200000 to 0x80000000;"
    f" process {ME} was told the former addresses"
)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A buffer's file, which this process has."""
    (tmp_path / "proc").mkdir(exist_ok=True)
    for name in ("self", str(ME)):
        (tmp_path / f"proc/{name}").symlink_to(f"/proc/{ME}")
    found = os.memfd_create("zoned")
    os.truncate(found, 3 * HUGE)
    yield found
    os.close(found)


def lease_of(file: int, pid: int = ME) -> Lease:
    return Lease(
        number=3,
        reservation="capture",
        pid=pid,
        start_time=7,
        uid=1000,
        size=3 * HUGE,
        segments=(Span(BASE, 2 * HUGE), Span(BASE + 4 * HUGE, HUGE)),
        inode=os.fstat(file).st_ino,
    )


def lie(patch: pytest.MonkeyPatch, *addresses: int) -> None:
    """Have the pages of the file lie there."""
    patch.setattr(lent, "addresses_in_use", lambda *_: addresses)


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("inherited", [False, True])
def test_page_that_was_moved(
    desk: Desk, file: int, monkeypatch: pytest.MonkeyPatch, *, inherited: bool
) -> None:
    pid = 1 if inherited else ME
    desk.machine.ledger.leased(lease_of(file, pid))
    lie(monkeypatch, *TOLD)
    assert moved_pages(desk.machine) == {}
    lie(monkeypatch, TOLD[0], 1 << 31, 0)
    told = MOVED.replace(f"process {ME}", f"process {pid}")
    assert moved_pages(desk.machine) == {3: told}


@pytest.mark.usefixtures("huge")
def test_buffer_that_nobody_is_seen_to_have(
    desk: Desk, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie(monkeypatch, 1, 2, 3)
    for inode in (None, 1):
        desk.machine.ledger.leased(replace(lease_of(file), inode=inode))
        assert moved_pages(desk.machine) == {}
    desk.machine.ledger.leased(lease_of(file))
    os.truncate(file, HUGE)
    assert moved_pages(desk.machine) == {}


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("what", ["links_to", "addresses_in_use"])
def test_look_that_is_forbidden(
    desk: Desk,
    file: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    def fail(*_: object) -> None:
        raise MachineError("not for us")

    monkeypatch.setattr(lent, what, fail)
    desk.machine.ledger.leased(lease_of(file))
    assert moved_pages(desk.machine) == {}
    assert "not for us" in caplog.text


@pytest.mark.usefixtures("huge")
def test_program_that_has_a_buffer_is_known_by_its_file(desk: Desk) -> None:
    lease = desk.alloc(1)
    assert lease.inode is not None
    assert desk.machine.ledger.touched.leases[lease.number].inode == lease.inode


def test_alert_at_the_next_look(scene: Scene, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = scene.engine.machine.ledger
    ledger.reserved(huge_held())
    ledger.leased(lease_of(file))
    lie(monkeypatch, *TOLD)
    scene.engine.tick()
    assert "lease 3" not in scene.alerts
    lie(monkeypatch, TOLD[0], 1 << 31, TOLD[2])
    scene.engine.tick()
    assert scene.alerts["lease 3"] == f"[buffer-moved] {MOVED}"
    assert any(each.subject == "lease 3" for each in scene.engine.dma_check())
    ledger.lease_ended(3)
    assert not any(each.subject == "lease 3" for each in scene.engine.dma_check())
