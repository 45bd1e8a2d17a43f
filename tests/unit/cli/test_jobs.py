# SPDX-License-Identifier: Apache-2.0
"""zonectl jobs and zonectl job."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.fake_client import DONE, MIB, RUNNING, ctrl_c
from zoned.api.types import ErrorInfo
from zoned.cli.report import in_order, left_behind, word
from zoned.errors import Denied, JobOver, NoDaemon, NoSuchJob
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.cli.conftest import Ran
    from tests.unit.cli.fake_client import FakeDaemon

HALF = replace(RUNNING, done=256 * MIB, rate=64.0 * MIB, eta=4.0, outcomes={"moved": 255 * MIB})


def test_no_jobs(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Jobs.List"] = []
    assert zonectl("jobs").out.splitlines()[-1] == "no jobs yet"
    assert json.loads(zonectl("jobs", "-o", "json").out) == []


def test_jobs(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    queued = replace(RUNNING, id=12, state="queued", total=0, what="move zone web to nodes 1")
    queued = replace(queued, phase="waiting for one of the jobs 7-10 to end")
    fake.answers["Jobs.List"] = [DONE, HALF, queued]
    assert zonectl("jobs").out == (
        "ID  STATE    DONE   MOVED  LEFT BEHIND     RATE    ETA  WHAT\n"
        " 7  done     100%  512MiB           0B        -      -  attach pid 4711 to zone db\n"
        " 7  running   50%  255MiB           0B  64MiB/s  4.0 s  attach pid 4711 to zone db\n"
        "12  queued      -      0B           0B        -      -  move zone web to nodes 1\n"
        "job 7: moving pages\n"
        "job 12: waiting for one of the jobs 7-10 to end\n"
    )
    shown = json.loads(zonectl("jobs", "--json").out)
    assert [job["id"] for job in shown] == [7, 7, 12]
    assert shown[1]["outcomes"] == {"moved": 255 * MIB}


def test_a_job_that_runs(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Jobs.Show"] = HALF
    found = zonectl("job", "7")
    assert (found.status, found.err) == (0, "")
    assert found.out.splitlines() == [
        "JOB    7",
        "what   attach pid 4711 to zone db",
        "state  running",
        "phase  moving pages",
        "done   256MiB of 512MiB (50%)",
        "rate   64MiB/s",
        "ETA    4.0 s left",
        "moved  255MiB",
    ]
    assert json.loads(zonectl("job", "7", "-o", "json").out)["rate"] == 64.0 * MIB
    assert fake.calls == [("Jobs.Show", {"id": 7})] * 2


def test_a_job_that_is_over_is_shown_with_status_0(
    fake: FakeDaemon, zonectl: Callable[..., Ran]
) -> None:
    error = ErrorInfo(code="no-capacity", message="node 2 is full", hint="")
    fake.answers["Jobs.Show"] = replace(DONE, state="failed", error=error)
    found = zonectl("job", "7")
    assert (found.status, found.err) == (0, "")
    lines = found.out.splitlines()
    assert "error            [no-capacity] node 2 is full" in lines
    assert "moved            512MiB" in lines
    assert lines[-1] == "a note"
    assert not [line for line in lines if line.startswith(("phase", "ETA"))]


@pytest.mark.parametrize(
    ("word", "method", "state", "text"),
    [
        ("pause", "Jobs.Pause", "paused", "job 7 is paused"),
        ("pause", "Jobs.Pause", "running", "job 7 is asked to pause; it is running still"),
        ("resume", "Jobs.Resume", "running", "job 7 is running"),
        ("resume", "Jobs.Resume", "queued", "job 7 is queued"),
        ("cancel", "Jobs.Cancel", "cancelled", "job 7 is cancelled"),
        ("cancel", "Jobs.Cancel", "running", "job 7 is asked to cancel; it is running still"),
    ],
)
def test_steering(
    fake: FakeDaemon, zonectl: Callable[..., Ran], word: str, method: str, state: str, text: str
) -> None:
    fake.answers[method] = replace(RUNNING, state=state)
    found = zonectl("job", "7", word)
    assert (found.status, found.out, found.err) == (0, f"{text}\n", "")
    assert json.loads(zonectl("job", "7", word, "-o", "json").out)["state"] == state
    assert set(map(str, fake.calls)) == {str((method, {"id": 7}))}


@pytest.mark.parametrize(
    ("arguments", "error", "status"),
    [
        (("job", "9"), NoSuchJob("there is no job 9"), 1),
        (("job", "9", "wait"), NoSuchJob("there is no job 9"), 1),
        (("job", "9", "wait"), NoDaemon("nobody"), 3),
        (("job", "9", "pause"), JobOver("job 9 is done"), 1),
        (("job", "9", "cancel"), Denied("not you"), 4),
        (("jobs",), Denied("not you"), 4),
    ],
)
def test_refusals(
    fake: FakeDaemon,
    zonectl: Callable[..., Ran],
    arguments: tuple[str, ...],
    error: NoSuchJob,
    status: int,
) -> None:
    for method in ("List", "Show", "Pause", "Cancel"):
        fake.answers[f"Jobs.{method}"] = error
    found = zonectl(*arguments)
    assert (found.status, found.out) == (status, "")
    assert found.err == f"zonectl: [{error.code}] {error.message}\n"


@pytest.mark.parametrize("arguments", [("job",), ("job", "x"), ("job", "0"), ("job", "7", "stop")])
def test_usage(fake: FakeDaemon, zonectl: Callable[..., Ran], arguments: tuple[str, ...]) -> None:
    assert zonectl(*arguments).status == 2
    assert not fake.calls


def test_waiting(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Jobs.Show"] = HALF
    fake.watches.append([HALF, DONE])
    found = zonectl("job", "7", "wait", "-o", "json")
    assert (found.status, found.err) == (0, "")
    events = [json.loads(line)["event"] for line in found.out.splitlines()]
    assert events == ["started", "progress", "finished"]


def test_waiting_for_what_others_cancel(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Jobs.Show"] = HALF
    fake.watches.append([HALF, replace(DONE, state="cancelled")])
    found = zonectl("job", "7", "wait")
    assert (found.status, found.err) == (1, "zonectl: [cancelled] job 7 was cancelled\n")


def test_ctrl_c_ends_the_waiting_alone(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Jobs.Show"] = HALF
    fake.watches.append([HALF, ctrl_c, fake.hang])
    found = zonectl("job", "7", "wait")
    assert found.status == 130
    assert found.err == "zonectl: job 7 goes on; zonectl job 7 shows it\n"
    assert {method for method, _ in fake.calls} == {"Jobs.Show", "Jobs.Watch"}


def test_outcomes_have_words_and_an_order() -> None:
    assert list(in_order({"busy": 1, "new-one": 2, "moved": 3, "there": 0})) == [
        ("moved", 3),
        ("busy", 1),
        ("new-one", 2),
    ]
    words = [word(outcome) for outcome in Outcome]
    assert len(set(words)) == len(words)
    assert all("-" not in text for text in words)
    assert word("new-one") == "new-one"


def test_left_behind_leaves_out_what_is_not_left() -> None:
    sizes = {str(outcome): MIB for outcome in Outcome}
    assert left_behind(replace(DONE, outcomes=sizes, left_behind=4 * MIB)) == (
        "4MiB are left where they should not be:"
        " 1MiB busy, 1MiB shared, 1MiB no memory, 1MiB pinned"
    )
