# SPDX-License-Identifier: Apache-2.0
"""What is seen of a job while it runs."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.fake_client import DONE, MIB, RUNNING
from zoned.cli import progress
from zoned.cli.output import Format

if TYPE_CHECKING:
    from zoned.api.types import JobInfo

CHECKOUT = Path(__file__).resolve().parents[3]
QUEUED = replace(RUNNING, state="queued", phase="", total=0)


def at(percent: float, **changes: object) -> JobInfo:
    return replace(RUNNING, done=math.ceil(RUNNING.total * percent / 100), **changes)  # type: ignore[arg-type]


def test_a_line_for_each_phase_and_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Lines() as lines:
        for job in (
            QUEUED,
            QUEUED,
            replace(RUNNING, phase="looking at pages", total=0),
            at(0),
            at(9.9),
            at(10, rate=250.0 * MIB, eta=2.1),
            at(19),
            at(55),
            replace(at(55), total=1024 * MIB),
            at(55, state="paused"),
            at(55),
            at(60),
            DONE,
        ):
            lines.show(job)
    assert capsys.readouterr().out.splitlines() == [
        "job 7: attach pid 4711 to zone db",
        "job 7: looking at pages",
        "job 7: moving pages, 0B of 512MiB",
        "job 7: moving pages, 51.2MiB of 512MiB, 250MiB/s, 2.1 s left",
        "job 7: moving pages, 281.6MiB of 512MiB",
        "job 7: paused, 281.6MiB of 512MiB",
        "job 7: moving pages, 281.6MiB of 512MiB",
        "job 7: moving pages, 307.2MiB of 512MiB",
    ]


def test_events(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Events() as events:
        for job in (QUEUED, at(1), DONE):
            events.show(job)
        events.say("for people")
    printed = capsys.readouterr()
    assert [json.loads(line)["event"] for line in printed.out.splitlines()] == [
        "started",
        "progress",
        "finished",
    ]
    assert printed.err == "zonectl: for people\n"


@pytest.mark.parametrize(
    ("output", "terminal", "term", "kind"),
    [
        (Format.TABLE, True, "xterm", progress.Bar),
        (Format.TABLE, True, "dumb", progress.Lines),
        (Format.TABLE, True, None, progress.Lines),
        (Format.TABLE, False, "xterm", progress.Lines),
        (Format.JSON, True, "xterm", progress.Events),
        (Format.YAML, True, "xterm", progress.Silence),
    ],
)
def test_who_sees_what(
    monkeypatch: pytest.MonkeyPatch,
    output: Format,
    *,
    terminal: bool,
    term: str | None,
    kind: type,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert type(progress.display_for(output)) is kind


def test_the_size_is_unknown_at_first() -> None:
    assert (progress.percent(QUEUED), progress.amount(QUEUED)) == (None, "")
    assert (progress.percent(at(50)), progress.amount(at(50))) == (50, "256MiB of 512MiB")
    assert progress.percent(replace(RUNNING, total=3, done=2)) == 66


_SCRIPT = """
import sys
from dataclasses import replace
from tests.unit.cli.fake_client import DONE, RUNNING
from zoned.cli.output import Format
from zoned.cli.progress import display_for
with display_for(Format.TABLE) as display:
    display.show(replace(RUNNING, total=0, phase="looking at pages"))
    display.say("the daemon is [gone]")
    display.show(replace(DONE, state="running", phase="moving [red]pages", rate=2.5e8, eta=0.5))
print("the end", "rich" in sys.modules)
"""


def test_a_bar_on_a_terminal() -> None:
    main, other = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "90", "PYTHONPATH": str(CHECKOUT)}
    try:
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            stdin=other,
            stdout=other,
            stderr=subprocess.PIPE,
            env=environment,
            check=True,
        )
        text = os.read(main, 1 << 16).decode()
    finally:
        os.close(main)
        os.close(other)
    assert re.search(r"\x1b\[2K\s*the end", text), "it vanishes"
    bare = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)
    assert "the daemon is [gone]\r\n" in bare
    assert re.search(r"moving \[red\]pages ━+ 512MiB of 512MiB 238.4MiB/s <1 s left", bare)
    assert bare.endswith("the end True\r\n")
    assert "job 7" not in bare
