# SPDX-License-Identifier: Apache-2.0
"""What is seen of a job while it runs: a bar, lines, or JSON events.

The one who follows a job shows each state it hears of; what is made of it depends on who looks.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

import click

from zoned.cli.output import Format, duration
from zoned.model.job import JobState
from zoned.units import format_size

if TYPE_CHECKING:
    from zoned.api.types import JobInfo

_STEP = 10
"""Percent after which a line is worth a reader's time."""


class Display(Protocol):
    """Shows a job. It is entered before the first state, and left before anything else prints."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *_: object) -> None: ...

    def show(self, job: JobInfo) -> None:
        """Show this state of the job."""

    def say(self, text: str) -> None:
        """Tell a person something about the following itself."""


def display_for(output: Format) -> Display:
    """Return what shows a job in this format on this standard output."""
    if output is Format.JSON:
        return Events()
    if output is Format.YAML:
        return Silence()
    # On a dumb terminal nothing can be drawn over.
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}:
        return Bar()
    return Lines()


def is_over(job: JobInfo) -> bool:
    """Tell whether nothing more will become of the job."""
    return JobState(job.state).is_over


def percent(job: JobInfo) -> int | None:
    """Return how much of the job is done, rounded down; None where its size is not known yet."""
    return job.done * 100 // job.total if job.total else None


def phase(job: JobInfo) -> str:
    """Return what the job does now, or waits for, else its state."""
    tells = job.state in {JobState.RUNNING, JobState.QUEUED}
    return job.phase if tells and job.phase else job.state


def amount(job: JobInfo) -> str:
    """Return e.g. ``120MiB of 512MiB``; "" where the size is not known yet."""
    return f"{format_size(job.done)} of {format_size(job.total)}" if job.total else ""


def speed(job: JobInfo) -> str:
    """Return e.g. ``250MiB/s``; "" where nothing moves."""
    return "" if job.rate is None else f"{format_size(round(job.rate))}/s"


def remaining(job: JobInfo) -> str:
    """Return e.g. ``2.1 s left``; "" where that cannot be told."""
    if job.eta is None:
        return ""
    return f"{duration(job.eta)} left" if job.eta >= 1 else "<1 s left"


class Silence:
    """Shows nothing until the end; the base of the others."""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, job: JobInfo) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Print the text on standard error: standard output is for data."""
        click.echo(f"zonectl: {text}", err=True)


class Events(Silence):
    """One JSON object a line. The first is "started", the last "finished"."""

    def __init__(self) -> None:
        self._started = False

    def show(self, job: JobInfo) -> None:
        """Print the job as a line; a job that is over when it is first seen makes two."""
        if not self._started:
            self._print("started", job)
        elif not is_over(job):
            self._print("progress", job)
        if is_over(job):
            self._print("finished", job)
        self._started = True

    def _print(self, event: str, job: JobInfo) -> None:
        click.echo(json.dumps({"event": event, **dataclasses.asdict(job)}))


class Lines(Silence):
    """A line at the start, and one when the phase changes or another tenth is done."""

    def __init__(self) -> None:
        self._seen: tuple[str, int] | None = None

    def show(self, job: JobInfo) -> None:
        """Print a line if there is something new. How the job ended is told by others."""
        seen = (phase(job), (percent(job) or 0) // _STEP)
        if self._seen is None:
            click.echo(f"job {job.id}: {job.what}")
        elif not is_over(job) and self._is_news(seen):
            parts = (phase(job), amount(job), speed(job), remaining(job))
            click.echo(f"job {job.id}: {', '.join(part for part in parts if part)}")
        else:
            return
        self._seen = seen

    def _is_news(self, seen: tuple[str, int]) -> bool:
        # The size of a job can grow, so that less of it is done than before: that is none.
        return self._seen is None or seen[0] != self._seen[0] or seen[1] > self._seen[1]


class Bar(Silence):
    """A bar that is drawn over itself and vanishes at the end."""

    def __init__(self) -> None:
        # It takes longer to load than most commands take.
        from rich.progress import BarColumn, Progress, TextColumn

        def text(name: str) -> TextColumn:
            return TextColumn(f"{{task.fields[{name}]}}", markup=False)

        self._bar: Any = Progress(
            text("phase"),
            BarColumn(bar_width=None),
            text("amount"),
            text("speed"),
            text("remaining"),
            expand=True,
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, job: JobInfo) -> None:
        """Draw the bar anew; it swings to and fro as long as the job's size is not known."""
        fields = {
            "phase": phase(job),
            "amount": amount(job),
            "speed": speed(job),
            "remaining": remaining(job),
        }
        if self._task is None:
            self._task = self._bar.add_task("", total=None, **fields)
        self._bar.update(self._task, total=job.total or None, completed=job.done, **fields)

    def say(self, text: str) -> None:
        """Print the text above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)
