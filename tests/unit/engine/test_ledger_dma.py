# SPDX-License-Identifier: Apache-2.0
"""What the ledger keeps of memory for devices."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from zoned.engine.ledger import Ledger, Touched
from zoned.errors import StateDamaged
from zoned.model.dma.held import Held, Lease
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from pathlib import Path

HELD = Held(
    name="raid@0000:03:00.0",
    rung=Rung.HUGETLB,
    size=64 << 20,
    mask=(1 << 31) - 1,
    devices=("0000:03:00.0",),
    standing=True,
    node=0,
    region="dax0.0",
    spans=(Span(0x10000000, 32 << 20), Span(0x20000000, 32 << 20)),
    blocks=(2, 4),
    above=(16,),
    page=2 << 20,
)
LEASE = Lease(
    number=7,
    reservation=HELD.name,
    pid=5,
    start_time=9,
    uid=1000,
    size=4096,
    segments=(Span(0x10000000, 4096),),
    ending=True,
)
BARE = Held(name="low", rung=Rung.LOWMEM, size=4096, mask=4095)


def test_reservations_and_leases_come_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    ledger.reserved(HELD)
    ledger.reserved(BARE)
    ledger.leased(LEASE)
    ledger.ratio_was((256, 256, 32, 0, 0))
    ledger.huge_added(0, 2 << 20, 32)
    assert Ledger(tmp_path, "boot").touched == ledger.touched
    assert ledger.touched == Touched(
        reservations={HELD.name: HELD, BARE.name: BARE},
        leases={7: LEASE},
        ratio=(256, 256, 32, 0, 0),
        huge={(0, 2 << 20): 32},
    )


def test_they_are_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "boot")
    ledger.reserved(HELD)
    ledger.reserved(replace(HELD, standing=False))
    ledger.leased(LEASE)
    ledger.ratio_was((1, 2))
    ledger.ratio_was((3, 4))
    assert ledger.touched.ratio == (1, 2)
    ledger.huge_added(0, 4096, 1)
    ledger.unreserved(HELD.name)
    ledger.lease_ended(7)
    ledger.ratio_was(None)
    ledger.huge_added(0, 4096, 0)
    assert Ledger(tmp_path, "boot").touched == Touched()


@pytest.mark.parametrize(
    "change",
    [
        {"reservations": [5]},
        {"reservations": [{"name": "x"}]},
        {"leases": [{"number": 1}]},
        {"ratio": ["x"]},
        {"huge": [[1, 2]]},
    ],
)
def test_damage_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    ledger = Ledger(tmp_path, "boot")
    ledger.reserved(HELD)
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StateDamaged, match=r"ledger\.json"):
        Ledger(tmp_path, "boot")
