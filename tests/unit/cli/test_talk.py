# SPDX-License-Identifier: Apache-2.0
"""A sign of life where a call takes long, and none where it would disturb."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from zoned.api.types import ZoneDetail
from zoned.cli import talk
from zoned.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.cli.conftest import Daemon


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a list in place of the spinner, on something that seems to be a terminal."""
    found: list[str] = []

    @contextlib.contextmanager
    def spinner(doing: str) -> Iterator[None]:
        found.append(doing)
        begun.set()
        yield
        found.append("over")

    begun = threading.Event()
    found_begun[:] = [begun]
    monkeypatch.setattr(talk, "_spinner", spinner)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    return found


found_begun: list[threading.Event] = []


def test_what_takes_long_is_shown(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "_PATIENCE", 0.0)
    with talk.sign_of_life("moving"):
        assert found_begun[0].wait(20)
    assert shown == ["moving", "over"]


def test_it_ends_also_when_the_call_fails(
    shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "_PATIENCE", 0.0)

    def call() -> None:
        with talk.sign_of_life("moving"):
            assert found_begun[0].wait(20)
            raise BadInput("no")

    with pytest.raises(BadInput):
        call()
    assert shown == ["moving", "over"]


def test_what_is_quick_is_not_shown(shown: list[str]) -> None:
    with talk.sign_of_life("moving"):
        pass
    assert shown == []


def test_nothing_is_shown_where_nobody_looks(
    shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "_PATIENCE", 0.0)
    threads = threading.active_count()
    with talk.sign_of_life(""):
        assert threading.active_count() == threads
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with talk.sign_of_life("moving"):
        assert threading.active_count() == threads
    assert shown == []


def test_the_spinner_is_richs() -> None:
    with talk._spinner("moving"):
        pass


def test_parameters_that_are_none_are_left_out(daemon: Daemon) -> None:
    session = talk.Session(socket=daemon.socket)
    made = talk.call(session, "Zones.Create", ZoneDetail, name="db", size=1 << 30, nodes=None)
    assert made.name == "db"
