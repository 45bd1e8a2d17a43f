# SPDX-License-Identifier: Apache-2.0
"""Sizes, as people write them and as they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import BadSize
from zoned.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        (4096, 4096),
        ("4096B", 4096),
        ("2GiB", 2 << 30),
        ("2 gib", 2 << 30),
        ("512M", 512 << 20),
        (" 1.5 G ", 3 << 29),
        ("3K", 3072),
        ("1TiB", 1 << 40),
        ("1T", 1 << 40),
        ("2kB", 2000),
        ("2MB", 2_000_000),
        ("1GB", 10**9),
        ("1TB", 10**12),
        ("0.5KiB", 512),
        ("18014398509481985", 18014398509481985),  # more than a float can tell apart
    ],
)
def test_parse(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0GiB",
        "0.0G",
        "0.1",
        "-1",
        "1e3",
        "GiB",
        "1XiB",
        "1 G B",
        "1,5G",
        "inf",
        "1.",
        -5,
        0,
    ],
)
def test_what_is_no_size(text: str | int) -> None:
    with pytest.raises(BadSize) as caught:
        parse_size(text)
    assert repr(text) in caught.value.message


@given(st.text(alphabet="0123456789. KMGTiBb\n-", max_size=300))
def test_any_text_is_a_size_or_a_bad_one(text: str) -> None:
    try:
        size = parse_size(text)
    except BadSize:
        return
    assert size >= 1


@given(st.integers(1, 1 << 50))
def test_a_size_that_is_shown_is_read_back_to_what_it_shows(size: int) -> None:
    shown = format_size(size)
    exact = next((f for f in ("TiB", "GiB", "MiB", "KiB", "B") if shown.endswith(f)), "")
    step = parse_size(f"1{exact}")
    assert abs(parse_size(shown) - size) <= step * 0.05 + 1


@given(st.integers(1, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_whole_numbers_are_shown_exactly(count: int, unit: str) -> None:
    assert format_size(parse_size(f"{count}{unit}")) == f"{count}{unit}"


def test_format() -> None:
    assert format_size(None) == "-"
    assert format_size(0) == "0B"
    assert format_size(3 << 29) == "1.5GiB"
    assert format_size(5 << 50) == "5120TiB"
    assert format_size(-(1 << 20)) == "-1MiB"


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 400 + ".5G", "٣GiB"])
def test_absurd_numbers_are_refused_like_any_other(text: str) -> None:
    with pytest.raises(BadSize):
        parse_size(text)
