# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share: what to move, how gently, and whether to wait for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from zoned.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., None]


class Positive(click.FloatRange):
    """A number above zero. Python reads "nan" and "inf" as numbers, too; they are none here."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


def what_options(command: Command) -> Command:
    """Give a command `--pid`, `--unit` and `--cgroup`, of which `require_one` wants one."""
    for option in (
        click.option("--cgroup", help="All processes of a cgroup, by its path."),
        click.option("--unit", help="A running unit of systemd, e.g. postgresql.service."),
        click.option("--pid", type=click.IntRange(1), help="One process."),
    ):
        command = option(command)
    return command


def require_one(given: dict[str, Any]) -> None:
    """Raise UsageError unless exactly one of what `what_options` gives is there."""
    if sum(given[name] is not None for name in ("pid", "unit", "cgroup")) != 1:
        raise UsageError("name one of --pid, --unit and --cgroup")


def pace_options(command: Command) -> Command:
    """Give a command `--stall` and `--rate`, as the methods that start jobs take them."""
    for option in (
        click.option(
            "--rate",
            metavar="MB/S",
            type=Positive(),
            help="Move at most this many megabytes (10^6 bytes) a second.  [default: no bound]",
        ),
        click.option(
            "--stall",
            metavar="MS",
            type=Positive(),
            help="Aim at keeping no page out of use for more than this many milliseconds while it"
            " moves.  [default: 10]",
        ),
    ):
        command = option(command)
    return command


def movers_option(command: Command) -> Command:
    """Give a command `--movers`."""
    return click.option(
        "--movers",
        metavar="N",
        type=click.IntRange(1),
        help="How many threads move pages.  [default: 2 on four CPUs or more]",
    )(command)


def no_wait_option(command: Command) -> Command:
    """Give a command `--no-wait`."""
    return click.option(
        "--no-wait", is_flag=True, help="Print the job's number and leave; the job goes on."
    )(command)


def dry_run_option(command: Command) -> Command:
    """Give a command `--dry-run`."""
    return click.option(
        "--dry-run", is_flag=True, help="Tell what would move and what would not; move nothing."
    )(command)
