# SPDX-License-Identifier: Apache-2.0
"""`zoned early`: with no daemon and no socket, and not beside a daemon."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import click
import pytest

from tests.unit.fakes import make_world
from zoned.daemon import early as early_module
from zoned.daemon import main as main_module
from zoned.errors import PolicyError
from zoned.kernel.state_file import lock_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine


@pytest.fixture
def early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[..., list[str]]:
    """Return what runs the command on a fake machine; it returns what was written."""
    world = make_world(tmp_path)
    (tmp_path / "config/zones.d").mkdir(parents=True)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(early_module, "build_machine", lambda _: world.machine())
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def run(*more: str) -> list[str]:
        caplog.clear()
        words = ["early", "--config", str(tmp_path / "config"), "--state", str(tmp_path / "state")]
        main_module.cli([*words, *more], standalone_mode=False)
        return caplog.messages

    return run


def write_policy(folder: Path, text: str) -> None:
    (folder / "config/zones.d/10-test.yaml").write_text(text)


def test_it_reserves_by_the_policy_and_tells_what_is_left(
    early: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []

    def reserve(machine: Machine, hands: Hands) -> list[str]:
        assert not hands.ends
        seen.append(tuple(each.name for each in machine.policy.dma.wishes))
        return ["reservation teach: none holds"]

    monkeypatch.setattr(early_module, "reserve_early", reserve)
    write_policy(tmp_path, "dma: {reservations: {teach: {match: {class: '01'}, size: 1MiB}}}")
    told = early()
    assert seen == [("teach",)]
    assert told[0] == "reservation teach: none holds; left to the daemon"
    assert told[1].startswith("reservations that stand: 0, 0.")
    # The lock is free again.
    os.close(lock_folder(tmp_path / "state"))


def test_it_may_take_so_long(
    early: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[bool] = []

    def reserve(_: Machine, hands: Hands) -> list[str]:
        ends.append(hands.ends)
        return []

    monkeypatch.setattr(early_module, "reserve_early", reserve)
    early("--seconds", "0")
    early("--seconds", "60")
    assert ends == [True, False]


def test_beside_a_daemon_it_does_nothing(early: Callable[..., list[str]], tmp_path: Path) -> None:
    lock = lock_folder(tmp_path / "state")
    try:
        assert early() == ["the daemon runs, and sees to it"]
    finally:
        os.close(lock)


def test_a_policy_with_mistakes_is_told_and_the_lock_is_free(
    early: Callable[..., list[str]], tmp_path: Path
) -> None:
    write_policy(tmp_path, "dma: 5\n")
    for _ in range(2):
        with pytest.raises(PolicyError, match=r"10-test\.yaml:1"):
            early()


def test_it_takes_root(early: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(click.ClickException, match="needs root"):
        early()
