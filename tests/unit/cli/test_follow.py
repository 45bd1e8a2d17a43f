# SPDX-License-Identifier: Apache-2.0
"""Following a job: what is printed, how it ends, Ctrl-C, and a daemon that goes and comes back."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import yaml

from tests.unit.cli.fake_client import DONE, MIB, RUNNING, ctrl_c
from zoned.api.types import ErrorInfo
from zoned.cli import follow
from zoned.cli.talk import Session
from zoned.errors import BadInput, Bug, Denied, JobOver, NoDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.cli.conftest import Ran
    from tests.unit.cli.fake_client import FakeDaemon, Step

ATTACH = ("attach", "db", "--pid", "4711")
PARTIAL = replace(
    DONE,
    state="partial",
    left_behind=12 * MIB,
    outcomes={"moved": 500 * MIB, "pinned": 4 * MIB, "busy": 8 * MIB, "gone": MIB},
)
CANCELLED = replace(DONE, state="cancelled", outcomes={"moved": 100 * MIB}, notes=[])


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PAUSE", 0.0)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def attach(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> Callable[..., Ran]:
    """Return what attaches, with the job going through these steps."""

    def run(*steps: Step, options: tuple[str, ...] = ()) -> Ran:
        fake.answers["Zones.Attach"] = replace(RUNNING, state="queued", phase="", total=0, left=0)
        fake.watches.append([*steps])
        return zonectl(*ATTACH, *options)

    return run


def interrupted(_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_a_job_that_is_done(attach: Callable[..., Ran], fake: FakeDaemon) -> None:
    found = attach(RUNNING, DONE)
    assert (found.status, found.err) == (0, "")
    assert found.out.splitlines() == [
        "job 7: attach pid 4711 to zone db",
        "job 7: moving pages, 0B of 512MiB",
        "job 7 is done: attach pid 4711 to zone db",
        "RESULT",
        "moved            512MiB",
        "there already    4MiB",
        "processes        1",
        "ended meanwhile  0",
        "foreign bytes    500MiB",
        "longest call     9.3 ms",
        "took             4.0 s",
        "a note",
    ]
    assert fake.calls == [
        ("Zones.Attach", {"name": "db", "pid": 4711}),
        ("Jobs.Watch", {"id": 7}),
    ]


def test_a_job_with_nothing_to_tell_has_no_table(attach: Callable[..., Ran]) -> None:
    bare = replace(DONE, outcomes={}, processes=0, longest_call=0.0, foreign=None, notes=[])
    assert attach(bare).out.splitlines()[1:] == ["job 7 is done: attach pid 4711 to zone db"]


def test_a_job_that_is_over_at_once_is_not_watched(
    fake: FakeDaemon, zonectl: Callable[..., Ran]
) -> None:
    fake.answers["Zones.Attach"] = DONE
    assert zonectl(*ATTACH).status == 0
    found = zonectl(*ATTACH, "-o", "json")
    events = [json.loads(line)["event"] for line in found.out.splitlines()]
    assert events == ["started", "finished"]
    assert {method for method, _ in fake.calls} == {"Zones.Attach"}


def test_json_is_one_event_a_line(attach: Callable[..., Ran]) -> None:
    half = replace(RUNNING, done=256 * MIB, rate=64e6, eta=4.0)
    found = attach(RUNNING, half, DONE, options=("-o", "json"))
    assert (found.status, found.err) == (0, "")
    events: list[dict[str, Any]] = [json.loads(line) for line in found.out.splitlines()]
    assert [event["event"] for event in events] == ["started", "progress", "progress", "finished"]
    assert [event["state"] for event in events] == ["queued", "running", "running", "done"]
    last = events[-1]
    assert (last["id"], last["done"], last["longest_call"]) == (7, 512 * MIB, 0.0093)
    assert last["outcomes"] == {"moved": 512 * MIB, "there": 4 * MIB}
    assert (last["error"], events[2]["eta"], events[2]["rate"]) == (None, 4.0, 64e6)


def test_yaml_is_the_end_alone(attach: Callable[..., Ran]) -> None:
    found = attach(RUNNING, PARTIAL, options=("-o", "yaml"))
    assert found.status == 64
    job = yaml.safe_load(found.out)
    assert (job["state"], job["left_behind"], "event" in job) == ("partial", 12 * MIB, False)


@pytest.mark.parametrize("options", [(), ("-o", "json"), ("-o", "yaml")])
def test_what_is_left_is_told_with_its_reasons(
    attach: Callable[..., Ran], options: tuple[str, ...]
) -> None:
    found = attach(RUNNING, PARTIAL, options=options)
    assert found.status == 64
    assert found.err == (
        "zonectl: [partial] 12MiB are left where they should not be: 8MiB busy, 4MiB pinned\n"
        "  hint: zoned-zones(7) tells what each reason means and what to do\n"
    )


def test_what_is_left_besides_memory(attach: Callable[..., Ran]) -> None:
    error = ErrorInfo(code="partial", message="zone db is left", hint="see there")
    only = replace(PARTIAL, error=error, left_behind=0, outcomes={"moved": MIB})
    found = attach(only)
    assert (found.status, found.err) == (
        64,
        "zonectl: [partial] zone db is left\n  hint: see there\n",
    )
    both = attach(replace(PARTIAL, error=error))
    assert "[partial] zone db is left; 12MiB are left where" in both.err
    assert "hint: see there" in both.err
    neither = attach(replace(only, error=None))
    assert (neither.status, neither.err) == (
        64,
        "zonectl: [partial] something is left of job 7\n",
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [("no-capacity", 1), ("denied", 4), ("partial", 64), ("zone-busy", 75), ("bug", 1)],
)
def test_a_failure_is_the_jobs_own(attach: Callable[..., Ran], code: str, status: int) -> None:
    error = ErrorInfo(code=code, message="node 2 is full", hint="try 3")
    found = attach(RUNNING, replace(RUNNING, state="failed", error=error))
    assert found.status == status
    assert found.err == f"zonectl: [{code}] node 2 is full\n  hint: try 3\n"


def test_a_failure_without_a_reason_is_a_defect(attach: Callable[..., Ran]) -> None:
    found = attach(replace(RUNNING, state="failed"))
    assert (found.status, found.err.splitlines()[0]) == (
        1,
        "zonectl: [bug] job 7 failed and does not say why",
    )


def test_a_job_that_others_cancelled(attach: Callable[..., Ran]) -> None:
    found = attach(RUNNING, CANCELLED)
    assert (found.status, found.err) == (1, "zonectl: [cancelled] job 7 was cancelled\n")
    assert "moved            100MiB" in found.out.splitlines()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (None, "the daemon ended during it\n  hint: ask for it again"),
        (ErrorInfo(code="try-later", message="it began anew", hint="ask"), "it began anew\n"),
    ],
)
def test_a_job_that_was_interrupted(
    attach: Callable[..., Ran], error: ErrorInfo | None, why: str
) -> None:
    found = attach(replace(CANCELLED, state="interrupted", error=error))
    assert found.status == 75
    assert found.err.startswith(f"zonectl: [interrupted] job 7 was interrupted: {why}")


@pytest.mark.parametrize("error", [BadInput("no"), Denied("no")])
def test_what_is_refused_prints_nothing_else(
    fake: FakeDaemon, zonectl: Callable[..., Ran], error: BadInput | Denied
) -> None:
    fake.answers["Zones.Attach"] = error
    for option in ((), ("-o", "json"), ("--no-wait",)):
        found = zonectl(*ATTACH, *option)
        assert (found.status, found.out) == (error.exit_status, "")
        assert found.err == f"zonectl: [{error.code}] no\n"


def test_not_waiting(fake: FakeDaemon, zonectl: Callable[..., Ran]) -> None:
    fake.answers["Zones.Attach"] = RUNNING
    assert zonectl(*ATTACH, "--no-wait").out == "7\n"
    shown = json.loads(zonectl(*ATTACH, "--no-wait", "-o", "json").out)
    assert (shown["id"], shown["state"]) == (7, "running")
    assert {method for method, _ in fake.calls} == {"Zones.Attach"}


def test_ctrl_c_cancels_and_follows_on(attach: Callable[..., Ran], fake: FakeDaemon) -> None:
    fake.answers["Jobs.Cancel"] = RUNNING
    found = attach(RUNNING, ctrl_c, fake.until_called("Jobs.Cancel"), CANCELLED)
    assert found.status == 130
    assert found.err == (
        "zonectl: cancelling job 7, what was moved stays; Ctrl-C again leaves at once\n"
    )
    assert "job 7 is cancelled: attach pid 4711 to zone db" in found.out
    assert "moved            100MiB" in found.out.splitlines()
    assert ("Jobs.Cancel", {"id": 7}) in fake.calls


def test_ctrl_c_when_the_job_ends_all_the_same(
    attach: Callable[..., Ran], fake: FakeDaemon
) -> None:
    fake.answers["Jobs.Cancel"] = JobOver("job 7 is done")
    found = attach(RUNNING, ctrl_c, fake.until_called("Jobs.Cancel"), DONE)
    assert found.status == 0
    assert "cannot be cancelled" not in found.err


def test_ctrl_c_twice_leaves_at_once(attach: Callable[..., Ran], fake: FakeDaemon) -> None:
    fake.answers["Jobs.Cancel"] = RUNNING
    found = attach(RUNNING, ctrl_c, fake.until_called("Jobs.Cancel"), ctrl_c, fake.hang)
    assert found.status == 130
    assert found.err.splitlines() == [
        "zonectl: cancelling job 7, what was moved stays; Ctrl-C again leaves at once",
        "zonectl: job 7 is being cancelled; zonectl job 7 shows it",
    ]
    assert "job 7 is" not in found.out


def test_two_ctrl_cs_at_once_still_cancel(
    attach: Callable[..., Ran], fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the second came before anybody has looked at the first.
    fake.answers["Jobs.Cancel"] = RUNNING
    monkeypatch.setattr(follow, "_next", interrupted)
    found = attach(fake.hang)
    assert found.status == 130
    assert found.err == "zonectl: job 7 is being cancelled; zonectl job 7 shows it\n"
    assert ("Jobs.Cancel", {"id": 7}) in fake.calls


def test_leaving_a_daemon_that_does_not_answer(
    attach: Callable[..., Ran], fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LAST_WORD", 0.0)
    fake.answers["Jobs.Cancel"] = Denied("no")
    monkeypatch.setattr(follow, "_next", interrupted)
    found = attach(fake.hang)
    assert found.status == 130
    assert found.err == "zonectl: job 7 may go on; zonectl job 7 shows it\n"


def test_ctrl_c_while_the_job_is_being_started(
    fake: FakeDaemon, zonectl: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: object, **__: object) -> object:
        ctrl_c()
        return RUNNING

    monkeypatch.setattr(follow, "call", call)
    cancelled = threading.Event()
    monkeypatch.setattr(follow._Cancelling, "_ask", lambda _: cancelled.set())
    fake.watches.append([lambda: cancelled.wait(20), CANCELLED])
    assert zonectl(*ATTACH).status == 130
    assert cancelled.is_set()


def test_ctrl_c_of_somebody_who_may_not_cancel(
    attach: Callable[..., Ran], fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()

    def say(_: object, text: str) -> None:
        if "[denied] no" in text:
            told.set()

    monkeypatch.setattr("zoned.cli.progress.Silence.say", say)
    fake.answers["Jobs.Cancel"] = Denied("no")
    assert attach(RUNNING, ctrl_c, lambda: told.wait(20), DONE).status == 0
    assert told.is_set()


def test_ctrl_c_while_the_daemon_is_being_restarted(
    attach: Callable[..., Ran], fake: FakeDaemon
) -> None:
    done = threading.Event()
    fake.answers["Jobs.Cancel"] = deque([NoDaemon("gone")] * 2 + [RUNNING])

    def cancelled_at_last() -> None:
        deadline = time.monotonic() + 20
        while [method for method, _ in fake.calls].count("Jobs.Cancel") < 3:
            assert time.monotonic() < deadline
        done.set()

    assert attach(RUNNING, ctrl_c, cancelled_at_last, CANCELLED).status == 130
    assert done.is_set()


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with follow.Interrupts():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_daemon_that_is_restarted(attach: Callable[..., Ran], fake: FakeDaemon) -> None:
    def leave() -> None:
        fake.away = 3

    fake.watches.append([RUNNING, leave, NoDaemon("closed")])
    # The second script is for the second connection.
    found = attach(RUNNING, RUNNING, DONE)
    assert found.status == 0
    assert found.err.splitlines() == [
        "zonectl: the daemon has gone, trying to reach it again",
        "zonectl: the daemon is back",
    ]
    assert fake.away == 0
    assert [method for method, _ in fake.calls].count("Jobs.Watch") == 2


def test_a_stream_that_ends_too_early_is_taken_up_again(
    attach: Callable[..., Ran], fake: FakeDaemon
) -> None:
    fake.watches.append([RUNNING])
    assert attach(DONE).status == 0


def test_a_daemon_that_does_not_come_back(
    attach: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.0)
    found = attach(RUNNING, NoDaemon("closed"))
    assert found.status == 3
    assert found.err.splitlines()[1:] == [
        "zonectl: [no-daemon] the daemon did not come back within 0 s",
        "  hint: the job may go on; zonectl job 7 shows what became of it",
    ]


def test_patience_ends_and_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patience = follow._Patience()
    assert not patience.is_tried
    assert patience.last()
    now = follow.PATIENCE - 0.1
    assert patience.last()
    now = follow.PATIENCE
    assert not patience.last()
    patience.restore()
    assert not patience.is_tried
    assert patience.last()


def test_another_error_ends_the_following(attach: Callable[..., Ran]) -> None:
    found = attach(RUNNING, Bug("the daemon answered nonsense"))
    assert (found.status, found.err) == (1, "zonectl: [bug] the daemon answered nonsense\n")


def test_a_defect_does_not_wait_for_ever(
    attach: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: told.set())
    found = attach(RUNNING, RuntimeError("oops"))
    assert found.status == 1
    assert "zonectl: [bug] job 7 can no longer be followed" in found.err
    assert told.wait(20), "its traceback is printed"


def test_a_job_is_cancelled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[object] = []
    monkeypatch.setattr(follow, "_thread", begun.append)
    cancelling = follow._Cancelling(Session(socket=tmp_path), 7, lambda _: None)
    assert cancelling.begin() is cancelling.begin()
    assert len(begun) == 1
