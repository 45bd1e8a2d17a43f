# SPDX-License-Identifier: Apache-2.0
"""The section `dma`: what devices reach, what is wanted for them, and every mistake in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.policy.anything import check_only_policy_errors, documents
from zoned.errors import PolicyError
from zoned.model.dma.match import Match
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import DmaPolicy, Lessees, Quirk, Wish, lessees
from zoned.policy.load import load, load_text

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
EVERYTHING = """
dma:
  quirks:
    - match: {id: 1028:0001, class: 0104}
      limit: 31
      source: data sheet
    - match:
        path: ["*/0000:3b:00.?"]
        subsystem: [1028:*, 1028:000A]
        modalias: pci:v00001028d*
        driver: aacraid
        class: [12, 0x0c03, 010400]
      limit: 0xBFFFFFFF
  reservations:
    scsi:
      match: {id: [1028:0001, 1028:0001]}
      size: 2GiB
    cards:
      match: {class: 01}
      size: 1GiB
      limit: 30
      pool: low
      hold: true
      rungs: [hugetlb, devdax, hugetlb]
      priority: 80
      users: [capture, capture, root]
      groups: video
"""


def problems(text: str) -> list[str]:
    """Return what is wrong with a file called f."""
    with pytest.raises(PolicyError) as caught:
        load_text(text, "f")
    return list(caught.value.problems)


def test_everything_at_once() -> None:
    assert load_text(EVERYTHING, "f").dma == DmaPolicy(
        quirks=(
            Quirk(
                match=Match(id=("1028:0001",), class_=("0104",)),
                limit=0x7FFFFFFF,
                place="f:4",
                reason="data sheet",
            ),
            Quirk(
                match=Match(
                    path=("*/0000:3b:00.?",),
                    subsystem=("1028:*", "1028:000a"),
                    modalias=("pci:v00001028d*",),
                    driver=("aacraid",),
                    class_=("12", "0c03", "010400"),
                ),
                limit=0xBFFFFFFF,
                place="f:7",
            ),
        ),
        wishes=(
            Wish(name="scsi", match=Match(id=("1028:0001",)), size=2 * GIB, place="f:15"),
            Wish(
                name="cards",
                match=Match(class_=("01",)),
                size=GIB,
                limit=0x3FFFFFFF,
                pool="low",
                hold=True,
                rungs=(Rung.DEVDAX, Rung.HUGETLB),
                priority=80,
                users=("capture", "root"),
                groups=("video",),
                place="f:18",
            ),
        ),
    )


def test_what_insists() -> None:
    plain, cards = load_text(EVERYTHING, "f").dma.wishes
    assert (plain.rungs, plain.insists, cards.insists) == (tuple(Rung), False, True)


@pytest.mark.parametrize("text", ["", "dma:", "dma: {}", "dma: {quirks: , reservations: }"])
def test_an_empty_section(text: str) -> None:
    assert load_text(text, "f").dma == DmaPolicy()


QUIRK = "dma:\n  quirks:\n  - "
WISH = "dma:\n  reservations:\n    a: "


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dma: 1", "f:1: dma: 1 is not a mapping (write KEY: VALUE, indented below it)"),
        ("dma: {quirk: 1}", "f:1: dma.quirk: is no known key (did you mean quirks?)"),
        (
            "dma: {quirks: {a: 1}}",
            "f:1: dma.quirks: a mapping is not a list (write each of them behind a '-')",
        ),
        (
            QUIRK + "{match: {id: 1028:0001}, limit: 31, limits: 3}",
            "f:3: dma.quirks[0].limits: is no known key (did you mean limit?)",
        ),
        (
            QUIRK + "{match: {id: 1028:0001}}",
            "f:3: dma.quirks[0].limit: is missing (write it like limit: 31)",
        ),
        (
            QUIRK + "{limit: 31}",
            "f:3: dma.quirks[0].match: is missing (write it like match: {id: 1028:000a})",
        ),
        (
            QUIRK + "{match: {}, limit: 31}",
            "f:3: dma.quirks[0].match: names no device"
            " (give one of path, subsystem, id, modalias, driver, class)",
        ),
        (
            QUIRK + "{match: {ids: 1028:0001}, limit: 31}",
            "f:3: dma.quirks[0].match.ids: is no known key (did you mean id?)",
        ),
        (
            QUIRK + "{match: {vendor: 1028}, limit: 31}",
            "f:3: dma.quirks[0].match.vendor: is no known key"
            " (known are path, subsystem, id, modalias, driver, class)",
        ),
        (
            QUIRK + "{match: {id: 1028}, limit: 31}",
            "f:3: dma.quirks[0].match.id: 1028 is no vendor and device"
            " (write it like 1028:000a or 1028:*)",
        ),
        (
            QUIRK + "{match: {class: [01, 1]}, limit: 31}",
            "f:3: dma.quirks[0].match.class: 1 is no class"
            " (write two, four or six digits, like 0104)",
        ),
        (
            QUIRK + "{match: {driver: []}, limit: 31}",
            "f:3: dma.quirks[0].match.driver: an empty list is no driver's name"
            " (write it like aacraid)",
        ),
        (
            QUIRK + "{match: {driver: true}, limit: 31}",
            "f:3: dma.quirks[0].match.driver: true is no driver's name (write it like aacraid)",
        ),
        (
            QUIRK + "{match: {driver: x}, limit: 31, source: 5}",
            "f:3: dma.quirks[0].source: 5 is no line of text (write where it is known from)",
        ),
        (
            QUIRK + '{match: {driver: x}, limit: 31, source: "a\\nb"}',
            "f:3: dma.quirks[0].source: 'a\\nb' is more than one line"
            " (write where it is known from)",
        ),
        (
            WISH + "{match: {driver: x}}",
            "f:3: dma.reservations.a.size: is missing (write it like size: 2GiB)",
        ),
        (
            WISH + "{match: {driver: x}, size: 1GiB, hold: 1}",
            "f:3: dma.reservations.a.hold: 1 is not true or false (write true or false)",
        ),
        (
            WISH + "{match: {driver: x}, size: 1GiB, rungs: [dax]}",
            "f:3: dma.reservations.a.rungs: 'dax' is no rung (write some of iommu, devdax, cma,"
            " lowmem, blocks, hugetlb, pending-reboot)",
        ),
        (
            WISH + "{match: {driver: x}, size: 1GiB, priority: 101}",
            "f:3: dma.reservations.a.priority: 101 is no priority (write a number, 0 to 100)",
        ),
        (
            WISH + "{match: {driver: x}, size: 1GiB, users: [capture, 1000]}",
            "f:3: dma.reservations.a.users: 1000 is no user's name (write names, not numbers)",
        ),
        (
            WISH + "{match: {driver: x}, size: 1GiB, groups: []}",
            "f:3: dma.reservations.a.groups: an empty list is no name (write names, not numbers)",
        ),
        (
            WISH + "{match: {driver: x}, size: 1GiB, pool: A}",
            "f:3: dma.reservations.a.pool: 'A' is no name for a reservation or a pool"
            " (1 to 63 of a-z 0-9 . _ -, the first a letter or digit)",
        ),
        (
            "dma: {reservations: {A: {match: {driver: x}, size: 1GiB}}}",
            "f:1: dma.reservations.A: 'A' is no name for a reservation or a pool"
            " (1 to 63 of a-z 0-9 . _ -, the first a letter or digit)",
        ),
        (
            "dma: {reservations: {match: {driver: x}}}",
            "f:1: dma.reservations.match.driver: is no known key"
            " (known are match, size, limit, pool, hold, rungs, priority, users, groups)",
        ),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    assert problem in problems(text)


@pytest.mark.parametrize(
    ("limit", "mask"),
    [
        ("12", 0xFFF),
        ("31", 0x7FFFFFFF),
        ("64", 0xFFFFFFFFFFFFFFFF),
        ("0xbfffffff", 0xBFFFFFFF),
        ("0XFFF", 0xFFF),
    ],
)
def test_limits(limit: str, mask: int) -> None:
    (quirk,) = load_text(f"{QUIRK}{{match: {{driver: x}}, limit: {limit}}}", "f").dma.quirks
    assert quirk.limit == mask


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("11", "11 is no number of address bits"),
        ("65", "65 is no number of address bits"),
        ("2147483647", "2147483647 is no number of address bits"),
        ("true", "true is no limit"),
        ("2GiB", "'2GiB' is no limit"),
        ("0x", "'0x' is no limit"),
        ("0xffe", "below '0xffe' there is not even a page"),
        ("0x10000000000000000", "'0x10000000000000000' is no limit"),
    ],
)
def test_bad_limits(limit: str, message: str) -> None:
    (problem,) = problems(f"{QUIRK}{{match: {{driver: x}}, limit: {limit}}}")
    hint = "(write bits (12 to 64), or the highest address, like 0x7fffffff)"
    assert problem == f"f:3: dma.quirks[0].limit: {message} {hint}"


CLOSER = "(remove one of them, or have one name the devices more closely)"


def test_quirks_that_contradict_name_both_places(tmp_path: Path) -> None:
    (tmp_path / "zones.d").mkdir()
    one, two = tmp_path / "zones.d/10.yaml", tmp_path / "zones.d/20.yaml"
    one.write_text("dma:\n  quirks:\n  - {match: {id: [1028:0001, 1028:0002]}, limit: 31}\n")
    two.write_text("dma:\n  quirks:\n\n  - {match: {id: [1028:0003, 1028:0002]}, limit: 32}\n")
    with pytest.raises(PolicyError) as caught:
        load([tmp_path])
    assert caught.value.problems == (
        f"{two}:4: dma.quirks[0].match: contradicts {one}:3: 32 bits here, 31 bits there {CLOSER}",
    )


@pytest.mark.parametrize(
    "other",
    [
        "{match: {id: 1028:0001}, limit: 31}",
        "{match: {id: 1028:0002}, limit: 32}",
        "{match: {id: 1028:0001, subsystem: 1028:*}, limit: 32}",
        "{match: {id: 1028:*}, limit: 32}",
        "{match: {driver: x}, limit: 32}",
    ],
)
def test_quirks_that_do_not_contradict(other: str) -> None:
    text = f"{QUIRK}{{match: {{id: 1028:0001}}, limit: 31}}\n  - {other}"
    assert len(load_text(text, "f").dma.quirks) == 2


def test_reservations_for_the_same_devices() -> None:
    text = f"""{WISH}{{match: {{driver: [x, y]}}, size: 1GiB}}
    b: {{match: {{driver: x}}, size: 1GiB}}
    c: {{match: {{driver: z}}, size: 1GiB}}"""
    assert problems(text) == [
        f"f:4: dma.reservations.b.match: names the same devices as f:3 {CLOSER}"
    ]


def test_reservations_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "zones.d").mkdir()
    one, two = tmp_path / "zones.d/10.yaml", tmp_path / "zones.d/20.yaml"
    one.write_text(f"{WISH}{{match: {{driver: x}}, size: 1GiB}}\n")
    two.write_text(f"{WISH}{{match: {{driver: y}}, size: 0}}\n")
    with pytest.raises(PolicyError) as caught:
        load([tmp_path])
    message = f"is defined already in {one}:3 (rename or remove one of them)"
    assert f"{two}:3: dma.reservations.a: {message}" in caught.value.problems


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "2GiB"),
        ("hold", "true"),
        ("rungs", "devdax"),
        ("priority", "7"),
        ("users", "capture"),
        ("groups", "video"),
    ],
)
def test_reservations_that_share_a_pool_agree(key: str, value: str) -> None:
    fields = {"size": "1GiB", "pool": "p", key: value}
    words = ", ".join(f"{name}: {word}" for name, word in fields.items())
    text = f"""{WISH}{{match: {{driver: x}}, size: 1GiB, pool: p}}
    b: {{match: {{driver: y}}, {words}}}"""
    assert problems(text) == [
        f"f:4: dma.reservations.b.{key}: differs from f:3, which shares the pool p"
        " (write the same in both)"
    ]
    alike = text.replace(f"{key}: {value}", "size: 1GiB" if key == "size" else "limit: 30")
    assert len(load_text(alike, "f").dma.wishes) == 2


def test_a_pool_and_a_reservation_without_one_have_different_names() -> None:
    text = f"""{WISH}{{match: {{driver: x}}, size: 1GiB}}
    b: {{match: {{driver: y}}, size: 1GiB, pool: a}}"""
    assert problems(text) == [
        "f:3: dma.reservations.a: is also the name of the pool in f:4 (rename one of them)"
    ]
    assert len(load_text(text.replace("pool: a", "pool: b"), "f").dma.wishes) == 2


def test_who_may_have_buffers() -> None:
    policy = load_text(EVERYTHING, "f").dma
    assert lessees(policy, "low") == Lessees(users=("capture", "root"), groups=("video",))
    nobody = ("cards", "scsi", "scsi@0000:01:00.0", "nothing", "")
    assert {lessees(policy, name) for name in nobody} == {Lessees()}
    scsi = load_text(WISH + "{match: {driver: x}, size: 1GiB, users: me}", "f").dma
    assert lessees(scsi, "a@0000:01:00.0") == Lessees(users=("me",))


def test_many_quirks_are_judged_at_once() -> None:
    quirks = [{"match": {"id": f"1028:{n:04x}"}, "limit": 31} for n in range(3000)]
    assert len(load_text(yaml.safe_dump({"dma": {"quirks": quirks}}), "f").dma.quirks) == 3000


WORD_LIST = """
quirks reservations match id driver class path limit size pool rungs hold priority source users
groups 1028:0001 1028:* 31 0x7fffffff 2GiB x true null iommu devdax
"""
WORDS = st.sampled_from(WORD_LIST.split())
PLAIN = documents(WORDS)


@given(PLAIN, PLAIN, PLAIN)
def test_whatever_stands_there_is_judged(one: object, two: object, three: object) -> None:
    match = {"match": {"driver": "x"}, "limit": 31, "size": "1GiB", "hold": three}
    for section in (
        one,
        {"quirks": [one, {**match, "source": two}, two]},
        {"reservations": {"a": one, "b": match, "c": {"match": two, "size": "1GiB"}}},
    ):
        check_only_policy_errors(yaml.safe_dump({"dma": section}))
