# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma prepare`: whatever happens is one line, in time, and no failure."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.fake_client import DONE, RUNNING, FakeDaemon
from zoned.api.types import ErrorInfo
from zoned.cli import prepare as prepare_module
from zoned.errors import Denied, NoDaemon, UnknownDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Ran

DEVICE = "0000:01:00.0"
WHAT = "reserve teach@0000:01:00.0"


@pytest.fixture
def prepare(zonectl: Callable[..., Ran]) -> Callable[[], str]:
    """Return what runs it, and returns the line that it prints."""

    def run() -> str:
        found = zonectl("dma", "prepare", DEVICE)
        assert (found.status, found.err) == (0, "")
        (line,) = found.out.splitlines()
        return line

    return run


def test_it_waits_for_the_job(fake: FakeDaemon, prepare: Callable[[], str]) -> None:
    running = replace(RUNNING, what=WHAT)
    done = replace(running, state="done", notes=["16MiB on lowmem", "and more"])
    fake.answers["Dma.Prepare"] = running
    fake.watches = [[running, done]]
    assert prepare().startswith(f"{DEVICE}: job 7 ({WHAT}) is done; 16MiB on lowmem; and more (0.")
    assert fake.calls == [("Dma.Prepare", {"device": DEVICE}), ("Jobs.Watch", {"id": 7})]


def test_where_nothing_is_wanted_nothing_is_waited_for(
    fake: FakeDaemon, prepare: Callable[[], str]
) -> None:
    fake.answers["Dma.Prepare"] = None
    assert prepare().startswith(f"{DEVICE}: there is nothing to do (0.")


def test_a_job_that_fails_is_told(fake: FakeDaemon, prepare: Callable[[], str]) -> None:
    error = ErrorInfo(code="no-rung", message="none holds", hint="")
    fake.answers["Dma.Prepare"] = RUNNING
    fake.watches = [[replace(DONE, state="failed", what=WHAT, notes=[], error=error)]]
    assert f"job 7 ({WHAT}) is failed: [no-rung] none holds (" in prepare()


@pytest.mark.parametrize("error", [UnknownDevice("no such"), Denied("not you"), NoDaemon("gone")])
@pytest.mark.parametrize("later", [False, True])
def test_errors_are_no_failure(
    fake: FakeDaemon, prepare: Callable[[], str], error: Exception, *, later: bool
) -> None:
    fake.answers["Dma.Prepare"] = RUNNING if later else error
    fake.watches = [[RUNNING, error]]
    assert f"] {error} (0." in prepare()


@pytest.mark.parametrize("words", ["Dma.Prepare", "Jobs.Watch"])
def test_time_runs_out(
    fake: FakeDaemon, prepare: Callable[[], str], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(prepare_module, "DEADLINE", 0.0)
    monkeypatch.setattr(prepare_module, "_LEAST", 0.02)
    fake.answers["Dma.Prepare"] = RUNNING
    fake.watches = [[fake.hang]]
    if words == "Dma.Prepare":
        monkeypatch.setattr(
            "tests.unit.cli.fake_client.FakeClient.call", lambda *_, **__: fake.hang()
        )
    before = signal.getsignal(signal.SIGALRM)
    assert "not ready in time; the daemon goes on with it (" in prepare()
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_daemon_that_does_not_even_take_the_connection(
    zonectl: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "DEADLINE", 0.0)
    monkeypatch.setattr(prepare_module, "_LEAST", 0.02)
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)
        found = zonectl("--socket", path, "dma", "prepare", DEVICE)
    assert (found.status, found.err) == (0, "")
    assert "not ready in time" in found.out


def test_no_daemon_is_told_at_once(zonectl: Callable[..., Ran], tmp_path: Path) -> None:
    found = zonectl("--socket", str(tmp_path / "nowhere"), "dma", "prepare", DEVICE)
    assert (found.status, found.err) == (0, "")
    assert found.out.startswith(f"{DEVICE}: [no-daemon] no daemon listens on ")


def test_the_other_commands_are_not_loaded_for_it(tmp_path: Path) -> None:
    script = (
        "import sys; from zoned.cli.main import main;"
        f" sys.argv = ['zonectl', '--socket', '{tmp_path}/x', 'dma', 'prepare', '{DEVICE}']\n"
        "main(); print(sorted(name for name in sys.modules if name.startswith('zoned.')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        check=True,
        text=True,
    )
    names = found.stdout.splitlines()[-1]
    assert "'zoned.cli.prepare'" in names
    for other in ("zoned.cli.dma'", "zoned.cli.topology", "zoned.model", "zoned.kernel"):
        assert other not in names
