# SPDX-License-Identifier: Apache-2.0
"""Devices of short reach that really do DMA, with memory that zoned keeps for them and without."""

import pytest

from tests.lab.edu import BITS_28, BITS_31, drive, enable, plugged
from tests.lab.harness.guest import Guest


@pytest.mark.on("trixie")
@pytest.mark.parametrize(("mask", "nodes"), [(BITS_28, (0, 2)), (BITS_31, (1, 3))])
def test_ordinary_memory_beyond_the_reach_is_lost(
    guest: Guest, mask: int, nodes: tuple[int, int]
) -> None:
    """What the other tests tell with buffers of zoned's they could tell with none: DMA can fail."""
    with plugged(guest, mask) as address:
        enable(guest, address)
        told = drive(guest, "plain", address, mask, *nodes)
    assert told["near"]["physical"] <= mask
    assert told["near"]["both_ways"] is True
    assert told["far"]["physical"] > mask
    assert told["far"]["taken"] == told["far"]["physical"] & mask
    assert (told["read"], told["written"]) == ("taken", "taken")
