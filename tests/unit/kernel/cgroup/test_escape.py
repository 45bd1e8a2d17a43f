# SPDX-License-Identifier: Apache-2.0
"""systemd's escaping, against systemd-escape itself where it is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import BadName
from zoned.kernel.cgroup.escape import (
    escape,
    parent_slice,
    unescape,
    zone_of_slice,
    zone_slice,
)

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,40}", fullmatch=True)
TEXTS = [
    "db",
    "a-b",
    ".hidden",
    "a.b",
    "x_y",
    "a/b",
    "ä ö",
    "a\\b",
    "--a",
    "a:b",
    "a@b",
    "%i",
    "_z",
    "a..-",
]


@pytest.mark.skipif(not shutil.which("systemd-escape"), reason="no systemd-escape here")
@pytest.mark.parametrize("text", TEXTS)
def test_as_systemd_escape_does(text: str) -> None:
    command = ["systemd-escape", "--", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert escape(text) == done.stdout.removesuffix("\n")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_unescape_is_the_inverse(text: str) -> None:
    assert unescape(escape(text)) == text


@given(NAMES)
def test_a_zone_is_found_in_its_slice(name: str) -> None:
    unit = zone_slice("zone", name)

    assert zone_of_slice("zone", unit) == name
    assert unit.count("-") == 1


def test_names_of_slices() -> None:
    assert parent_slice("zone") == "zone.slice"
    assert parent_slice("my-zone") == r"my\x2dzone.slice"
    assert zone_slice("zone", "a-b") == r"zone-a\x2db.slice"


@pytest.mark.parametrize(
    "name",
    [
        "zone.slice",
        "zone-.slice",
        "zone-a-b.slice",
        "zone-Foo.slice",
        "zone-a.scope",
        "other-a.slice",
        r"zone-\x61.slice",
    ],
)
def test_what_is_no_zone(name: str) -> None:
    assert zone_of_slice("zone", name) is None


def test_a_name_that_systemd_cannot_take() -> None:
    zone_slice("zone", "a" + "-" * 60)
    with pytest.raises(BadName, match="too long"):
        zone_slice("zone", "a" + "-" * 61)
