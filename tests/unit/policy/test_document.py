# SPDX-License-Identifier: Apache-2.0
"""YAML text to plain data with places."""

from __future__ import annotations

import pytest

from zoned.policy.document import Document, Plain, parse
from zoned.policy.files import Source
from zoned.policy.problem import Place, Problem


def good(text: str) -> Document:
    """Parse text that has nothing wrong."""
    problems: list[Problem] = []
    document = parse(Source(name="f", text=text), problems)
    assert problems == []
    assert document is not None
    return document


def wrong(text: str) -> list[str]:
    """Parse text that has mistakes, and return them."""
    problems: list[Problem] = []
    parse(Source(name="f", text=text), problems)
    return [str(one) for one in problems]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("# nothing\n", None),
        ("---\n", None),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ("a: 'null'", {"a": "null"}),
        ("a: true", {"a": True}),
        ("a: FALSE", {"a": False}),
        ("a: 'true'", {"a": "true"}),
        ("a: 12", {"a": 12}),
        ("a: -3", {"a": -3}),
        ("a: '12'", {"a": "12"}),
        ("a: !!str 12", {"a": "12"}),
        ("a: [1, x, {b: c}]", {"a": [1, "x", {"b": "c"}]}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("a: >\n  x\n  y\n", {"a": "x y\n"}),
        ("x: &n [1, 2]\ny: *n\n", {"x": [1, 2], "y": [1, 2]}),
        ("0: a\non: b\n~: c\n'': d\n", {"0": "a", "on": "b", "~": "c", "": "d"}),
        ("%YAML 1.1\n---\na: 1\n...\n", {"a": 1}),
    ],
)
def test_data(text: str, data: Plain) -> None:
    assert good(text).data == data


@pytest.mark.parametrize(
    "text", ["010", "0x10", "0b1", "1_000", "1:30", "1.5", ".inf", "yes", "off", "2024-01-01", "+1"]
)
def test_yaml_reads_nothing_into_text(text: str) -> None:
    assert good(f"a: {text}").data == {"a": text}


@pytest.mark.parametrize("text", ["=", "9" * 30])
def test_odd_scalars_are_text(text: str) -> None:
    assert good(f"a: {text}").data == {"a": text}


def test_places() -> None:
    document = good("zones:\n  db:\n    users: [a,\n      b]\n  x: &n {size: 1}\n  y: *n\n")
    assert document.place(("zones",)) == Place(1, 1)
    assert document.place(("zones", "db", "users")) == Place(3, 5)
    assert document.place(("zones", "db", "users", 1)) == Place(4, 7)
    assert document.place(("zones", "y")) == Place(6, 3)
    assert document.place(("zones", "y", "size")) == Place(5, 10)


def test_place_of_what_is_missing_is_around_it() -> None:
    document = good("zones:\n  db: {}\n")
    assert document.place(("zones", "db", "size")) == Place(2, 3)
    assert document.place(("system", "x")) == Place(1, 1)
    assert good("").place(("a",)) == Place(1, 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a:\n\tb: 1",
            r"f:2: column 1: found character '\t' that cannot start any token"
            " (indent with spaces, not tabs)",
        ),
        (
            "a: b: c",
            "f:1: column 5: mapping values are not allowed here"
            " (quote a value that holds ': ', check the indentation)",
        ),
        (
            "a:\n   b: 1\n  c: 2",
            "f:3: column 3: expected <block end>, but found '<block mapping start>'"
            " (check the indentation)",
        ),
        ("a: 1\nb\n", "f:3: column 1: could not find expected ':' (write KEY: VALUE)"),
        ("a: [1", "f:1: column 6: the text ends inside brackets (close them)"),
        ("a: 'x", "f:1: column 6: the text ends inside quotes (close them)"),
        (
            "a: @x",
            "f:1: column 4: found character '@' that cannot start any token (quote the value)",
        ),
        (
            "{a: !1}",
            "f:1: column 7: a tag ends unexpectedly (quote a value that begins with !)",
        ),
        (
            "a: !1",
            "f:1: a: the tag '!1' is not supported (quote a value that begins with !)",
        ),
        (
            "a: !!python/name:os.system x",
            "f:1: a: the tag 'tag:yaml.org,2002:python/name:os.system' is not supported"
            " (quote a value that begins with !)",
        ),
        (
            "a: !!binary eA==",
            "f:1: a: the tag 'tag:yaml.org,2002:binary' is not supported"
            " (quote a value that begins with !)",
        ),
        (
            "a: !!set {x}",
            "f:1: a: the tag 'tag:yaml.org,2002:set' is not supported"
            " (quote a value that begins with !)",
        ),
        (
            "!k a: 1",
            "f:1: document: the tag '!k' is not supported (quote a value that begins with !)",
        ),
        ("a: 1\n---\nb: 2", "f:2: column 1: a second document begins here"
         " (one file, one document)"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "f:4: a.b: is here twice, first on line 2"),
        ("0: a\n'0': b", "f:2: 0: is here twice, first on line 1"),
        ("a:\n  ? [x]\n  : 1", "f:2: a: a key must be a single word"),
        (
            "a: &x {b: 1}\nc:\n  <<: *x",
            "f:3: c: merging with '<<' is not supported (write the settings out)",
        ),
        ("a: *x", "f:1: column 4: found undefined alias 'x'"),
        (
            "a: &x 1\nb: &x 2",
            "f:2: column 4: an anchor of this name is there already (give it another name)",
        ),
        ("a: &x [*x]", "f:1: column 4: an alias stands inside what it refers to"),
        ("\n\n" + "[" * 33, "f:3: column 33: is nested too deeply"),
        ("a: 1\nb: \x07", r"f:2: column 4: the character '\x07' may not stand in YAML"),
        ('a: "\\ud800"', "f:1: column 4: an escape stands for half a character"),
        ('"\\ud800": 1', "f:1: column 1: an escape stands for half a character"),
        ('a: "\\U99999999"', "f:1: document: is no valid YAML"),
        (f"%YAML {'9' * 5000}.1\n---\n", "f:1: document: is no valid YAML"),
        ("%YAML 3.1\n---\n", "f:1: column 1: found incompatible YAML document"
         " (version 1.* is required)"),
    ],
)  # fmt: skip
def test_mistakes(text: str, problem: str) -> None:
    assert wrong(text) == [problem]


def test_mistakes_that_do_not_stop_yaml_are_all_told() -> None:
    found = wrong("a: 1\na: 2\nb: !x 3\nc:\n  d: 1\n  d: 2\n")
    assert [one.split(": ")[0] for one in found] == ["f:2", "f:3", "f:6"]


def test_duplicate_keeps_the_first() -> None:
    problems: list[Problem] = []
    document = parse(Source(name="f", text="a: 1\na: 2\n"), problems)
    assert document is not None
    assert document.data == {"a": 1}


def test_alias_bomb() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert wrong("\n".join(lines)) == ["f:1: column 34: aliases expand to too many values"]


def test_chain_of_aliases() -> None:
    lines = ["- &a0 [x]", *(f"- &a{n} [*a{n - 1}]" for n in range(1, 400))]
    assert wrong("\n".join(lines)) == ["f:1: column 8: aliases nest too deeply"]


def test_many_values() -> None:
    text = "a: [" + "1," * 50_000 + "1]"
    assert wrong(text) == ["f:1: column 99999: holds too many values"]
