# SPDX-License-Identifier: Apache-2.0
"""run, attach, detach."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from zoned.cli import members as members_module

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.unit.cli.conftest import Daemon


class Became(Exception):
    """What execve was called with, instead of its doing."""


@pytest.fixture(autouse=True)
def no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(program: str, arguments: tuple[str, ...], environment: object) -> None:
        del environment
        raise Became(program, *arguments)

    monkeypatch.setattr(os, "execve", execve)
    before = [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
    monkeypatch.setattr(members_module, "become", kept_signals(members_module.become, before))


def kept_signals(become: object, before: Sequence[object]) -> object:
    """Let it reset signals, and put them back for the tests that follow."""

    def wrapped(*arguments: object) -> None:
        try:
            become(*arguments)  # type: ignore[operator]
        finally:
            after = [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)]
            for number, handler in zip((signal.SIGPIPE, signal.SIGXFSZ), before, strict=True):
                signal.signal(number, handler)  # type: ignore[arg-type]
            service = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
            assert after == [signal.SIG_IGN if service else signal.SIG_DFL, signal.SIG_DFL]

    return wrapped


@pytest.fixture
def zone(daemon: Daemon) -> Daemon:
    daemon.well("create", "db", "--size", "1GiB")
    return daemon


@pytest.mark.parametrize("service", [True, False])
def test_a_service_goes_on_ignoring_broken_pipes(
    zone: Daemon, monkeypatch: pytest.MonkeyPatch, *, service: bool
) -> None:
    """And nobody else does. See `kept_signals`."""
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()) if service else "1")
    with pytest.raises(Became):
        zone.zonectl("run", "db", "true")


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (("true",), ("true",)),
        (("--", "true"), ("true",)),
        (("true", "--help", "-o", "x", "--", "y"), ("true", "--help", "-o", "x", "--", "y")),
        (("--", "true", "-v"), ("true", "-v")),
    ],
)
def test_run_enters_and_becomes_the_command(
    zone: Daemon, given: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(Became) as became:
        zone.zonectl("run", "db", *given)
    program, *rest = became.value.args
    assert os.path.basename(program) == "true"  # noqa: PTH119 - it is text
    assert tuple(rest) == arguments
    assert zone.world.groups.pids("db") == (os.getpid(),)


def test_run_of_what_is_not_there_enters_nothing(zone: Daemon, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for command, status in (("no-such-command", 127), (str(plain), 126), ("/nowhere/x", 127)):
        found = zone.zonectl("run", "db", "--", command)
        assert found.status == status
        assert found.err.startswith(f"zonectl: {command}: ")
    assert not zone.world.groups.pids("db")


@pytest.mark.parametrize("arguments", [("run", "db"), ("run", "db", "--"), ("run",)])
def test_run_of_nothing_is_no_use(zone: Daemon, arguments: tuple[str, ...]) -> None:
    found = zone.zonectl(*arguments)
    assert found.status == 2
    assert not zone.world.groups.pids("db")


def test_run_of_what_the_kernel_refuses(zone: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(os, "execve", refuse)
    found = zone.zonectl("run", "db", "true")
    assert found.status == 126
    assert "Exec format error" in found.err


def test_run_in_a_zone_that_is_not_there(zone: Daemon) -> None:
    found = zone.zonectl("run", "ghost", "true")
    assert (found.status, found.err.splitlines()[0]) == (
        1,
        "zonectl: [no-such-zone] there is no zone 'ghost'",
    )


def test_attach_and_detach_a_process(zone: Daemon) -> None:
    zone.world.add_process(7, "/user")
    events = zone.well("attach", "db", "--pid", "7", "-o", "json").splitlines()
    last = json.loads(events[-1])
    assert (last["event"], last["state"], last["kind"]) == ("finished", "done", "attach")
    assert zone.world.groups.pids("db") == (7,)
    assert "is done: detach" in zone.well("detach", "db", "--pid", "7")
    assert zone.world.groups.where[7] == "/user"


def test_attach_a_unit_and_a_cgroup(zone: Daemon) -> None:
    zone.world.add_process(7, "/batch")
    out = zone.well("attach", "db", "--unit", "web")
    assert "web.service is charged to its own cgroup until it is restarted" in out
    zone.well("detach", "db", "--unit", "web.service")
    zone.well("attach", "db", "--cgroup", "/batch")
    assert zone.world.groups.pids("db") == (7,)
    zone.well("detach", "db", "--cgroup", "/batch")
    assert zone.world.groups.where[7] == "/batch"


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("attach", "db"), "usage", 2),
        (("attach", "db", "--pid", "7", "--unit", "x"), "usage", 2),
        (("attach", "db", "--pid", "99999999"), "no-such-process", 1),
        (("attach", "db", "--pid", "1"), "not-confinable", 1),
        (("attach", "db", "--pid", "2"), "kernel-thread", 1),
        (("attach", "db", "--unit", "ghost"), "no-such-unit", 1),
        (("attach", "db", "--cgroup", "no/slash"), "no-such-cgroup", 1),
        (("attach", "db", "--cgroup", "/zone"), "no-such-cgroup", 1),
        (("attach", "ghost", "--pid", "7"), "no-such-zone", 1),
        (("detach", "db", "--pid", "7"), "not-a-member", 1),
        (("detach", "db", "--cgroup", "/x"), "not-a-member", 1),
    ],
)
def test_mistakes(zone: Daemon, arguments: tuple[str, ...], code: str, status: int) -> None:
    zone.world.add_process(7, "/user")
    zone.world.add_process(2, ppid=2)
    before = dict(zone.world.groups.where)
    found = zone.zonectl(*arguments)
    assert (found.status, found.out) == (status, "")
    assert found.err.startswith(f"zonectl: [{code}] ")
    assert zone.world.groups.where == before


@pytest.mark.parametrize("pid", ["0", "-1", "x"])
def test_what_is_no_pid(zone: Daemon, pid: str) -> None:
    assert zone.zonectl("attach", "db", "--pid", pid).status == 2
