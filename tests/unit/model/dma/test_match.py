# SPDX-License-Identifier: Apache-2.0
"""Which devices a match names, and which word counts."""

from __future__ import annotations

import dataclasses

import pytest

from zoned.errors import DmaContradiction
from zoned.model.dma.device import Bus, Device
from zoned.model.dma.match import Match, closest
from zoned.model.dma.wish import Quirk, Wish, device_wish

CARD = Device(
    bus=Bus.PCI,
    address="0000:02:00.0",
    path="/devices/pci0000:00/0000:00:1c.0/0000:02:00.0",
    vendor=0x9005,
    device=0x0285,
    subsystem_vendor=0x17AA,
    subsystem_device=0x0286,
    class_code=0x010400,
    modalias="pci:v00009005d00000285sv000017AAsd00000286bc01sc04i00",
    driver="aacraid",
)
NOTHING = Device(bus=Bus.PCI, address="0000:03:00.0")


@pytest.mark.parametrize(
    ("match", "fit"),
    [
        (Match(path=("*/0000:02:00.0",)), (1, 0, 0, 0, 0, 0)),
        (Match(path=("/devices/pci0000:00/*",)), (1, 0, 0, 0, 0, 0)),
        (Match(path=("0000:02:00.0",)), None),
        (Match(subsystem=("17aa:0286",)), (0, 2, 0, 0, 0, 0)),
        (Match(subsystem=("17aa:*",)), (0, 1, 0, 0, 0, 0)),
        (Match(id=("9005:0285",)), (0, 0, 2, 0, 0, 0)),
        (Match(id=("9005:*",)), (0, 0, 1, 0, 0, 0)),
        (Match(id=("9005:*", "9005:0285")), (0, 0, 2, 0, 0, 0)),
        (Match(id=("9005:0284", "900:*")), None),
        (Match(modalias=("pci:v00009005*",)), (0, 0, 0, 1, 0, 0)),
        (Match(modalias=("PCI:*",)), None),
        (Match(driver=("aacraid",)), (0, 0, 0, 0, 1, 0)),
        (Match(driver=("aac",)), None),
        (Match(class_=("01",)), (0, 0, 0, 0, 0, 2)),
        (Match(class_=("0104", "01")), (0, 0, 0, 0, 0, 4)),
        (Match(class_=("010400",)), (0, 0, 0, 0, 0, 6)),
        (Match(class_=("02",)), None),
        (Match(id=("9005:0285",), subsystem=("17aa:*",)), (0, 1, 2, 0, 0, 0)),
        (Match(id=("9005:0285",), driver=("megaraid",)), None),
    ],
)
def test_fit(match: Match, fit: tuple[int, ...] | None) -> None:
    assert match.fit(CARD) == fit


@pytest.mark.parametrize("key", ["path", "subsystem", "id", "modalias", "driver", "class_"])
def test_what_is_unknown_does_not_fit(key: str) -> None:
    match = dataclasses.replace(Match(), **{key: ("*",)})
    assert match.fit(NOTHING) is None


def quirk(place: str, limit: int = 1, **keys: tuple[str, ...]) -> Quirk:
    """Return a quirk."""
    return Quirk(match=Match(**keys), limit=limit, place=place)


def chosen(*quirks: Quirk) -> str | None:
    """Return the place of the quirk that counts."""
    found = closest(CARD, quirks, lambda one, other: one.limit == other.limit, "differ")
    return None if found is None else found.place


def test_the_closest_counts() -> None:
    wide = quirk("wide", class_=("010400",), driver=("aacraid",), modalias=("pci:*",))
    vendor, board = quirk("vendor", id=("9005:*",)), quirk("board", id=("9005:0285",))
    subsystem, slot = quirk("subsystem", subsystem=("17aa:*",)), quirk("slot", path=("*",))
    order = [wide, vendor, board, subsystem, slot]
    for count in range(1, len(order) + 1):
        assert chosen(*order[:count]) == order[count - 1].place
        assert chosen(*reversed(order[:count])) == order[count - 1].place
    assert chosen() is None
    assert chosen(quirk("other", id=("1028:0001",))) is None


def test_two_that_agree_are_no_contradiction() -> None:
    assert chosen(quirk("a:1", id=("9005:0285",)), quirk("b:2", id=("9005:0285",))) == "a:1"


def test_a_contradiction_names_both_places() -> None:
    with pytest.raises(DmaContradiction) as caught:
        chosen(quirk("a:1", 1, driver=("aacraid",)), quirk("b:2", 2, driver=("aacraid",)))
    assert caught.value.message == (
        "a:1 and b:2 name 0000:02:00.0 as closely as each other, and differ"
    )
    assert "more closely" in caught.value.hint


def test_a_contradiction_that_something_closer_settles() -> None:
    two = quirk("a:1", 1, driver=("aacraid",)), quirk("b:2", 2, driver=("aacraid",))
    assert chosen(*two, quirk("c:3", 3, id=("9005:*",))) == "c:3"


def test_wishes_that_are_as_close_contradict() -> None:
    one = Wish(name="a", match=Match(driver=("aacraid",)), size=1, place="a:1")
    other = dataclasses.replace(one, name="b", place="b:2")
    assert device_wish(CARD, [one]) == one
    assert device_wish(NOTHING, [one]) is None
    with pytest.raises(DmaContradiction, match=r"a:1 and b:2 .* both want memory for it"):
        device_wish(CARD, [one, other])


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        (Match(id=("1:2",)), Match(id=("1:2",)), True),
        (Match(id=("1:2", "1:3")), Match(id=("1:4", "1:3")), True),
        (Match(id=("1:2",)), Match(id=("1:3",)), False),
        (Match(id=("1:2",)), Match(id=("1:2",), driver=("x",)), False),
        (Match(id=("1:2",), driver=("x",)), Match(id=("1:2",), driver=("x", "y")), True),
        (Match(id=("1:2",), driver=("x",)), Match(id=("1:2",), driver=("y",)), False),
        (Match(driver=("x",)), Match(class_=("x",)), False),
    ],
)
def test_who_surely_meets(one: Match, other: Match, *, meets: bool) -> None:
    assert one.surely_meets(other) is meets
    assert other.surely_meets(one) is meets
