# SPDX-License-Identifier: Apache-2.0
"""The tree of errors: codes that programs may rely on."""

from __future__ import annotations

import inspect
import re

import pytest

from zoned import errors
from zoned.errors import (
    BadInput,
    Bug,
    Denied,
    JobCancelled,
    MachineError,
    NoDaemon,
    Partial,
    PendingReboot,
    PolicyError,
    TryLater,
    UsageError,
    ZonedError,
    by_code,
    revive,
)

CLASSES = [
    member
    for member in vars(errors).values()
    if isinstance(member, type) and issubclass(member, ZonedError)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_code_of_its_own_and_explains_itself(cls: type[ZonedError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code)
    assert by_code()[cls.code] is cls
    assert "code" in vars(cls)
    text = inspect.cleandoc(cls.__doc__ or "")
    assert len(text) > 20
    assert text.rstrip("`)").endswith((".", "1"))


def test_all_are_found_by_their_codes() -> None:
    assert set(by_code().values()) == set(CLASSES)
    assert len(by_code()) == len(CLASSES)


def test_every_class_is_in_the_picture() -> None:
    picture = (errors.__doc__ or "").partition("\n\n")[2]
    for cls in CLASSES:
        assert re.search(rf"\b{cls.__name__}\b", picture)


@pytest.mark.parametrize("cls", CLASSES)
def test_statuses(cls: type[ZonedError]) -> None:
    special = {UsageError: 2, NoDaemon: 3, Denied: 4, Partial: 64, PendingReboot: 64}
    usual = 75 if issubclass(cls, TryLater) else 1
    assert cls.exit_status == special.get(cls, usual)


def test_an_error_belongs_to_user_system_or_defect() -> None:
    for cls in CLASSES:
        if cls is not ZonedError:
            kinds = (BadInput, MachineError, NoDaemon, Denied, Partial, TryLater, JobCancelled, Bug)
            assert sum(issubclass(cls, kind) for kind in kinds) == 1


def test_text() -> None:
    assert str(BadInput("what")) == "what"
    assert str(BadInput("what", hint="do this")) == "what (do this)"


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_that_came_over_the_socket(cls: type[ZonedError]) -> None:
    error = revive(cls.code, "what", "do this")
    assert type(error) is cls
    assert (error.message, error.hint, str(error)) == ("what", "do this", "what (do this)")


def test_a_code_that_is_not_known() -> None:
    error = revive("from-the-future", "what", "")
    assert type(error) is ZonedError
    assert str(error) == "what"


def test_all_problems_of_a_policy_are_told() -> None:
    error = PolicyError(("a:1: x", "b:2: y"))
    assert error.message == "a:1: x\nb:2: y"
    assert error.problems == ("a:1: x", "b:2: y")
    assert error.hint
