# SPDX-License-Identifier: Apache-2.0
"""How zonectl prints: tables for people, JSON and YAML for programs.

A command makes plain data (what JSON prints) and tables (what people see) and hands both to
`emit`. On a terminal the tables are rich's; in a pipe they are plain aligned text, with nothing
cut off, and rich is not even loaded: it takes longer than most commands.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

P = ParamSpec("P")
R = TypeVar("R")

_GAP = 2


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The head of one column of a table."""

    title: str
    right: bool = False
    """aligned to the right, as numbers are"""


Row: TypeAlias = "Sequence[str | int | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under heads. A cell that is None prints as ``-``."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    title: str | None = None

    def cells(self) -> list[list[str]]:
        """Return the rows as they are printed."""
        return [["-" if cell is None else str(cell) for cell in row] for row in self.rows]

    def widths(self) -> list[int]:
        """Return what each column needs, in characters."""
        heads = [column.title for column in self.columns]
        return [max(map(len, column)) for column in zip(heads, *self.cells(), strict=True)]


def columns(*titles: str) -> tuple[Column, ...]:
    """Return columns of these titles; one that begins with ``>`` is aligned to the right."""
    return tuple(Column(title=t.removeprefix(">"), right=t.startswith(">")) for t in titles)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return e.g. ``1 zone``, ``2 zones``; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return a time as people read it: ``9.3 ms``, ``4.1 s``, ``2 min 5 s``, ``3 h 2 min``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def output_option(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command `-o table|json|yaml` and `--json`; it receives a Format as `output`."""

    @functools.wraps(command)
    def with_format(*args: P.args, **kwargs: P.kwargs) -> R:
        short = kwargs.pop("as_json")
        kwargs["output"] = Format.JSON if short else Format(str(kwargs["output"]))
        return command(*args, **kwargs)

    for option in (
        click.option("--json", "as_json", is_flag=True, help="Short for -o json."),
        click.option(
            "-o",
            "--output",
            type=click.Choice([str(one) for one in Format]),
            default=str(Format.TABLE),
            show_default=True,
            help="How to print; sizes are bytes in json and yaml.",
        ),
    ):
        with_format = option(with_format)
    return with_format


def emit(
    output: Format,
    data: Mapping[str, object] | Sequence[object],
    *tables: Table,
    notes: Sequence[str] = (),
) -> None:
    """Print `data` as JSON or YAML, or the tables and after them the notes."""
    if output is Format.JSON:
        click.echo(json.dumps(data, indent=2))
    elif output is Format.YAML:
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
    else:
        _emit_tables(tables)
        for note in notes:
            click.echo(note)


def plain(table: Table) -> str:
    """Return a table as aligned text, lines as long as they need to be."""
    widths = table.widths()
    heads = [column.title for column in table.columns]
    lines = [
        (" " * _GAP)
        .join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        )
        .rstrip()
        for row in [heads, *table.cells()]
    ]
    return "\n".join([table.title, *lines] if table.title else lines)


def _emit_tables(tables: Sequence[Table]) -> None:
    for index, table in enumerate(tables):
        if index:
            click.echo()
        if sys.stdout.isatty():
            _emit_rich(table)
        else:
            click.echo(plain(table))


def _emit_rich(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        drawn.add_column(
            Text(column.title), justify="right" if column.right else "left", no_wrap=True
        )
    for row in table.cells():
        drawn.add_row(*(Text(cell) for cell in row))
    # A table wider than the terminal is left to the terminal to wrap: rich would cut cells off.
    needed = sum(table.widths()) + _GAP * len(table.columns)
    Console(width=max(Console().width, needed)).print(drawn)
