# SPDX-License-Identifier: Apache-2.0
"""How commands print."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import click
import pytest
import yaml
from click.testing import CliRunner

from zoned.cli.output import Format, Table, columns, counted, duration, emit, output_option, plain

DATA = {"name": "db", "size": 268435456, "peak": None, "nodes": [0, 2], "full": False}
TABLE = Table(
    columns=columns("NAME", ">SIZE", "NOTE"),
    rows=[["db", "256MiB", "x" * 300], ["a-much-longer-name", None, "[red]é"]],
)


@click.command
@output_option
def command(output: Format) -> None:
    """Print something."""
    emit(output, DATA, TABLE, TABLE, notes=["all is well"])


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("arguments", [("-o", "json"), ("--json",), ("--output=json", "--json")])
def test_json(arguments: tuple[str, ...]) -> None:
    text = run(*arguments)
    assert json.loads(text) == DATA
    assert text.startswith('{\n  "name": "db",\n')


def test_yaml() -> None:
    text = run("-o", "yaml")
    assert yaml.safe_load(text) == DATA
    assert text.startswith("name: db\n"), "in the order of the data"


def test_plain_tables_are_aligned_and_cut_nothing_off() -> None:
    text = run()
    one = [
        "NAME" + " " * 14 + "    SIZE  NOTE",
        "db" + " " * 16 + "  256MiB  " + "x" * 300,
        "a-much-longer-name       -  [red]é",
    ]
    assert text.splitlines() == [*one, "", *one, "all is well"]
    assert text == run("-o", "table")


def test_a_table_without_rows_has_its_heads() -> None:
    assert plain(Table(columns=columns("A", ">B"), rows=[])) == "A  B"


def test_a_title_stands_above() -> None:
    assert plain(Table(columns=columns("A"), rows=[[7]], title="seven")) == "seven\nA\n7"


def test_a_row_that_fits_no_columns_is_a_defect() -> None:
    with pytest.raises(ValueError, match="zip"):
        plain(Table(columns=columns("A", "B"), rows=[["x"]]))


def test_one_is_no_plural() -> None:
    assert [counted(number, "zone") for number in (0, 1, 2)] == ["0 zones", "1 zone", "2 zones"]
    assert counted(1, "process", "processes") == "1 process"
    assert counted(3, "process", "processes") == "3 processes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.00025, "0.25 ms"),
        (0.0093, "9.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (10979, "3 h 2 min"),
    ],
)
def test_times_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_unknown_format_is_a_usage_error() -> None:
    result = CliRunner().invoke(command, ["-o", "xml"])
    assert result.exit_code == 2
    assert "'table', 'json', 'yaml'" in result.stderr


_SCRIPT = """
from zoned.cli.output import Format, Table, columns, emit
import sys
emit(Format.TABLE, {}, Table(columns=columns("NAME", ">SIZE"), title="zones",
     rows=[["db", "[bold]" + "x" * 100], [None, 1]]))
print("rich" in sys.modules, file=sys.stderr)
"""


def test_rich_is_not_loaded_for_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stderr == "False\n"
    assert done.stdout.splitlines()[1].split() == ["NAME", "SIZE"]


def test_a_terminal_gets_a_rich_table_with_nothing_cut_off() -> None:
    main, other = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "40"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            stdin=other,
            stdout=other,
            stderr=subprocess.PIPE,
            env=environment,
            check=True,
        )
        text = os.read(main, 65536).decode()
    finally:
        os.close(main)
        os.close(other)
    assert done.stderr == b"True\n"
    assert "\x1b[" in text
    bare = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert [line.split() for line in bare.splitlines()] == [
        ["zones"],
        ["NAME", "SIZE"],
        ["db", "[bold]" + "x" * 100],
        ["-", "1"],
    ]
