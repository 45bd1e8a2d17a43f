# SPDX-License-Identifier: Apache-2.0
"""How a mistake is put in words."""

from __future__ import annotations

import pytest

from zoned.policy.problem import Path, Place, Problem, field_name, shown


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "document"),
        (("zones", "db", "users", 1), "zones.db.users[1]"),
        (("zones", "a b"), "zones.'a b'"),
        (("",), "''"),
        ((0, "x"), "[0].x"),
        (("zones", "\x1b[31m"), r"zones.'\x1b[31m'"),
    ],
)
def test_field_name(path: Path, name: str) -> None:
    assert field_name(path) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ({"a": 1}, "a mapping"),
        ([1], "a list"),
        (7, "7"),
        ("it", "'it'"),
        ("x" * 100, "'" + "x" * 58 + "…"),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(file="f", message="is bad"), "f: is bad"),
        (Problem(file="f", place=Place(3, 9), field="a.b", message="is bad"), "f:3: a.b: is bad"),
        (
            Problem(file="f", place=Place(3, 9), field="a", message="is bad", hint="mend it"),
            "f:3: a: is bad (mend it)",
        ),
        (Problem(file="a\nb\udcff", message="is bad"), "a?b?: is bad"),
    ],
)
def test_one_printable_line(problem: Problem, text: str) -> None:
    assert str(problem) == text
    assert str(problem).encode()


def test_order_is_by_file_then_position() -> None:
    problems = [
        Problem(file="b", message="1"),
        Problem(file="a", place=Place(10, 1), message="2"),
        Problem(file="a", place=Place(9, 5), message="3"),
        Problem(file="a", place=Place(9, 2), message="4"),
        Problem(file="a", message="5"),
    ]
    assert [p.message for p in sorted(problems, key=lambda one: one.order)] == list("54321")
