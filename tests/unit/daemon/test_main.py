# SPDX-License-Identifier: Apache-2.0
"""The command zoned: its options, and one line and a status for every failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import pytest

from zoned.daemon import main as main_module
from zoned.daemon import service as service_module
from zoned.errors import StateDamaged, TryLater, ZonedError

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.daemon.machine import Options


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TryLater("another zoned works here"), 75),
        (StateDamaged("cannot read it"), 1),
        (click.UsageError("what?"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_every_failure_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main_module, "cli", fail)
    monkeypatch.setattr(main_module, "setup_logging", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main_module.main()
    assert ended.value.code == status
    if isinstance(error, ZonedError):
        assert f"[{error.code}] {error}" in caplog.text
    if isinstance(error, click.UsageError):
        assert "what?" in capsys.readouterr().err


def test_the_command_hands_its_options_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Options] = []

    class FakeService:
        def __init__(self, options: Options) -> None:
            seen.append(options)

        async def run(self) -> None:
            return

    monkeypatch.setattr(service_module, "Service", FakeService)
    arguments = ["run", "--config", "/c", "--socket", "/s", "--state", "/t", "--group", "g"]
    main_module.cli([*arguments, "--sysroot", str(tmp_path)], standalone_mode=False)
    assert (str(seen[0].config), str(seen[0].state), seen[0].group) == ("/c", "/t", "g")
    assert seen[0].sysroot == tmp_path


def test_without_root_it_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(click.ClickException, match="needs root"):
        main_module.cli(["run"], standalone_mode=False)
