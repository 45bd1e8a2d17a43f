# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager, and the log's form."""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from zoned.daemon.log import JournalFormatter, setup_logging, stderr_is_journal
from zoned.daemon.notify import notify, watchdog_interval

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        name = f"@zoned-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(name.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield found


def test_lines_arrive(listener: socket.socket) -> None:
    assert notify("READY=1", "STATUS=well")
    assert listener.recv(4096) == b"READY=1\nSTATUS=well"


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


def test_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nowhere"))
    assert not notify("READY=1")
    assert "cannot tell the service manager READY=1" in caplog.text


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 15.0),
        ("30000000", str(os.getpid()), 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
        ("30000000", "me", None),
    ],
    ids=["for-all", "for-me", "for-another", "none", "words", "nothing", "for-words"],
)
def test_watchdog(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, seconds: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_interval() == seconds


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize(
    ("level", "mark"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
    ],
)
def test_journal_lines_carry_their_level(level: int, mark: int) -> None:
    record = logging.LogRecord("zoned", level, "", 0, "one\ntwo %s", ("three",), None)
    assert JournalFormatter("%(message)s").format(record) == f"<{mark}>one\n<{mark}>two three"


def test_stderr_is_the_journal_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "journal").open("w") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setattr(sys, "stderr", journal)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert stderr_is_journal()
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        assert not stderr_is_journal()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not stderr_is_journal()


@pytest.mark.parametrize(
    ("word", "level"),
    [("debug", logging.DEBUG), ("ERR", logging.ERROR), ("loud", logging.INFO), (None, 20)],
)
def test_the_least_level_shown(
    monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger, word: str | None, level: int
) -> None:
    monkeypatch.delenv("SYSTEMD_LOG_LEVEL", raising=False)
    if word is not None:
        monkeypatch.setenv("SYSTEMD_LOG_LEVEL", word)
    setup_logging()
    assert root_logger.level == level


@pytest.mark.parametrize("journal", [True, False])
def test_lines_on_stderr(
    monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger, *, journal: bool
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("zoned.daemon.log.stderr_is_journal", lambda: journal)
    setup_logging()
    root_logger.warning("look")
    text = stream.getvalue()
    assert text == "<4>look\n" if journal else text.endswith("WARNING look\n")
