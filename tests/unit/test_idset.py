# SPDX-License-Identifier: Apache-2.0
"""Lists of numbers, as the kernel prints them and as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import BadList
from zoned.idset import format_ids, parse_ids, select_ids

IDS = st.frozensets(st.integers(0, 1 << 16), max_size=40)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", set()),
        (" \n", set()),
        ("0", {0}),
        ("0-3", {0, 1, 2, 3}),
        ("0-1,33-34,72", {0, 1, 33, 34, 72}),
        ("3, 1", {1, 3}),
        ("5-5", {5}),
        ("2,2,1-2", {1, 2}),
        ("65536", {65536}),
    ],
)
def test_parse(text: str, ids: set[int]) -> None:
    assert parse_ids(text) == ids


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "-1",
        "1-",
        "3-1",
        "1,,2",
        ",",
        "1,",
        "0-3:1/2",
        "all",
        "!1",
        "1.5",
        "²",
        "\u0663",
        "65537",
        "0-99999999999",
        "0x3",
        "1 2",
        "1\0",
    ],
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(BadList) as caught:
        parse_ids(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


@given(IDS)
def test_what_is_printed_is_read_back(ids: frozenset[int]) -> None:
    assert parse_ids(format_ids(ids)) == ids


@given(IDS)
def test_printing_is_as_short_as_can_be(ids: frozenset[int]) -> None:
    starts = [number for number in ids if number - 1 not in ids]
    assert len([span for span in format_ids(ids).split(",") if span]) == len(starts)


@given(st.text(alphabet="0123456789,-! all\0x", max_size=4000))
def test_any_text_is_a_list_or_a_bad_one(text: str) -> None:
    try:
        found = parse_ids(text)
    except BadList:
        return
    assert all(0 <= number <= 1 << 16 for number in found)


@given(IDS, IDS)
def test_selecting(ids: frozenset[int], known: frozenset[int]) -> None:
    if ids:
        assert select_ids(f" {format_ids(ids)}", known) == ids
        rest = known - ids
        if rest:
            assert select_ids(f"!{format_ids(ids)}", known) == rest
        else:
            with pytest.raises(BadList):
                select_ids(f"!{format_ids(ids)}", known)
    if known:
        assert select_ids("all ", known) == known


@pytest.mark.parametrize("text", ["", "!0-3", "!all", "all,1", "!!1"])
def test_what_selects_nothing(text: str) -> None:
    with pytest.raises(BadList):
        select_ids(text, {0, 1, 2, 3})


def test_format_of_nothing() -> None:
    assert format_ids([]) == ""
    assert format_ids([3, 1, 2, 2, 7]) == "1-3,7"


@pytest.mark.parametrize("text", ["9" * 5000, "0-" + "9" * 5000, "0-65535," * 5000])
def test_absurd_lists_are_refused_like_any_other(text: str) -> None:
    with pytest.raises(BadList):
        parse_ids(text)
