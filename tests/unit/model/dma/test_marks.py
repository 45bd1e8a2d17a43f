# SPDX-License-Identifier: Apache-2.0
"""The names by which a udev rule knows devices for which something may be wanted."""

from __future__ import annotations

import pytest

from zoned.model.dma.marks import marks
from zoned.model.dma.match import Match
from zoned.model.dma.wish import Wish


def wish(match: Match) -> Wish:
    return Wish(name="x", match=match, size=4096)


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (Match(id=("1234:11e8",)), {"0x1234:0x11e8"}),
        (Match(id=("1234:11e8", "1028:*")), {"0x1234:0x11e8", "0x1028"}),
        # The identity is enough: it names more devices, never fewer.
        (Match(id=("1234:11e8",), class_=("00",), path=("*",)), {"0x1234:0x11e8"}),
        (Match(path=("*/0000:3b:00.0", "*/0000:3c:00.0")), {"0000:3b:00.0", "0000:3c:00.0"}),
        (Match(path=("*/0000:3b:00.0", "*/0000:3b:00.?")), {"any"}),
        (Match(path=("/devices/pci0000:00/*",)), {"any"}),
        (Match(path=("*0000:3b:00.0",)), {"any"}),
        (Match(path=("/devices/",)), {"any"}),
        (Match(path=("/devices/..",)), {"any"}),
        (Match(class_=("0104",)), {"any"}),
        (Match(modalias=("pci:v00001131*",)), {"any"}),
        (Match(subsystem=("1028:*",)), {"any"}),
        # A device that appears has no driver yet.
        (Match(driver=("aacraid",), id=("1028:000a",)), set()),
    ],
)
def test_names(match: Match, names: set[str]) -> None:
    assert marks([wish(match)]) == names


def test_wishes_add_up() -> None:
    found = marks([wish(Match(id=("1234:11e8",))), wish(Match(class_=("01",)))])
    assert found == {"0x1234:0x11e8", "any"}
    assert marks([]) == frozenset()
