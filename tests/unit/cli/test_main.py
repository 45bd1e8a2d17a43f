# SPDX-License-Identifier: Apache-2.0
"""zonectl as a whole: help, exit statuses, and what it loads to start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import zoned
from zoned.cli import main as main_module
from zoned.errors import Denied, NoDaemon, Partial, TryLater, ZonedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Daemon, Ran

CONTEXT = click.Context(main_module.cli)
COMMANDS = main_module.cli.list_commands(CONTEXT)


def test_these_are_the_commands() -> None:
    assert COMMANDS == [
        "attach",
        "base",
        "blocks",
        "check",
        "create",
        "destroy",
        "detach",
        "dma",
        "explain",
        "job",
        "jobs",
        "list",
        "migrate",
        "move",
        "reload",
        "reset",
        "resize",
        "run",
        "schema",
        "show",
        "status",
        "topology",
    ]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_teaches(zonectl: Callable[..., Ran], command: str | None) -> None:
    words = [command, "--help"] if command else ["-h"]
    found = zonectl(*words)
    assert (found.status, found.err) == (0, "")
    assert found.out.startswith("Usage: ")
    assert len(found.out.splitlines()) >= 5


def test_every_option_is_explained() -> None:
    for name in COMMANDS:
        command = main_module.cli.get_command(CONTEXT, name)
        assert command is not None
        assert command.name == name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_version(zonectl: Callable[..., Ran]) -> None:
    assert zonectl("--version").out == f"zonectl, version {zoned.__version__}\n"


def test_no_daemon(zonectl: Callable[..., Ran], tmp_path: Path) -> None:
    found = zonectl("--socket", str(tmp_path / "nowhere"), "list")
    assert (found.status, found.out) == (3, "")
    assert found.err.startswith("zonectl: [no-daemon] no daemon listens on ")
    assert "\n  hint: start it" in found.err


def test_the_socket_from_the_environment(
    daemon: Daemon, zonectl: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZONED_SOCKET", str(daemon.socket))
    assert zonectl("list").status == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoDaemon("x"), 3),
        (Denied("x", hint="ask"), 4),
        (Partial("x"), 64),
        (TryLater("x"), 75),
        (ZonedError("x"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("x"), 2),
    ],
)
def test_statuses(
    zonectl: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main_module, "cli", fail)
    found = zonectl("list")
    assert found.status == status
    assert ("hint: ask" in found.err) == isinstance(error, Denied)


def test_a_denial_from_the_daemon(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoned.daemon.peer.Peer.is_root", False)
    monkeypatch.setattr("zoned.daemon.peer._group_id", lambda _: None)
    for arguments in (("list",), ("create", "db", "--size", "1GiB"), ("reset",)):
        found = daemon.zonectl(*arguments)
        assert found.status == 4
        assert "zonectl: [denied] user " in found.err
    assert not daemon.world.groups.made


def test_a_reader_that_went_away_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(
        [sys.executable, "-m", "zoned.cli.main", "explain"],
        cwd=Path(__file__).resolve().parents[3],
        stdout=write,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(write)
        _, errors = process.communicate()
    assert process.returncode != 0
    assert errors == b""


def test_what_is_slow_to_load_is_not_loaded_to_start() -> None:
    slow = ["asyncio", "asyncvarlink", "jeepney", "numpy", "psutil"]
    slow += ["pydantic", "pyudev", "rich", "yaml"]
    script = (
        "import sys; from zoned.cli.main import cli; [*cli.commands.values()];"
        f" print([name for name in {slow} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        check=True,
        text=True,
    )
    assert found.stdout == "[]\n"


def test_importing_the_commands_for_devices_is_cheap() -> None:
    code = (
        "import sys, zoned.cli.dma;"
        "assert not {'pydantic', 'yaml', 'numpy', 'zoned.model.dma.allot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
