# SPDX-License-Identifier: Apache-2.0
"""The policy's word on memory that is plugged in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zoned.errors import PolicyError
from zoned.model.policy import OnlineBy
from zoned.policy.load import load, load_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "online"),
    [
        ("", OnlineBy.KERNEL),
        ("hotplug:", OnlineBy.KERNEL),
        ("hotplug: {}", OnlineBy.KERNEL),
        ("hotplug: {online: kernel}", OnlineBy.KERNEL),
        ("hotplug: {online: zoned}", OnlineBy.ZONED),
    ],
)
def test_who_brings_it_online(text: str, online: OnlineBy) -> None:
    assert load_text(text, "f").online is online


def test_later_file_says(tmp_path: Path) -> None:
    folder = tmp_path / "zones.d"
    folder.mkdir()
    (folder / "10-a.yaml").write_text("hotplug: {online: zoned}\n")
    (folder / "20-b.yaml").write_text("hotplug:\nsystem: {reserve: 1%}\n")
    assert load([tmp_path]).online is OnlineBy.ZONED
    (folder / "30-c.yaml").write_text("hotplug: {online: kernel}\n")
    assert load([tmp_path]).online is OnlineBy.KERNEL


@pytest.mark.parametrize(
    ("text", "movable_only"),
    [
        ("hotplug: {online: zoned}", False),
        ("hotplug: {online: zoned, movable_only: true}", True),
        ("hotplug: {movable_only: false}", False),
    ],
)
def test_movable_memory_alone(text: str, *, movable_only: bool) -> None:
    assert load_text(text, "f").movable_only is movable_only


def test_later_file_says_so_of_each_key(tmp_path: Path) -> None:
    folder = tmp_path / "zones.d"
    folder.mkdir()
    (folder / "10-a.yaml").write_text("hotplug: {movable_only: true}\n")
    (folder / "20-b.yaml").write_text("hotplug: {online: zoned}\n")
    assert load([tmp_path]).movable_only
    (folder / "30-c.yaml").write_text("hotplug: {movable_only: false}\n")
    assert not load([tmp_path]).movable_only
    assert load([tmp_path]).online is OnlineBy.ZONED


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hotplug: {online: udev}", "'udev' brings no memory online (write kernel or zoned)"),
        ("hotplug: {online: true}", "brings no memory online"),
        ("hotplug: {onlin: zoned}", "is no known key (did you mean online?)"),
        ("hotplug: zoned", "is not a mapping"),
        ("hotplug: {movable_only: maybe}", "'maybe' is not true or false (write true or false)"),
        ("hotplug: {movable_only: 1}", "1 is not true or false"),
        ("hotplug: {movable: true}", "is no known key (did you mean movable_only?)"),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_text(text, "f")
    assert problem in caught.value.message
    assert caught.value.message.startswith("f:1: hotplug")
