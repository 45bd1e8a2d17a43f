# SPDX-License-Identifier: Apache-2.0
"""Jobs as tables: what became of each byte, and all that is known of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.cli.output import Row, Table, columns, duration
from zoned.cli.progress import amount, percent, remaining, speed
from zoned.model.migration import Outcome
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zoned.api.types import JobInfo

_WORDS = {
    Outcome.THERE: "there already",
    Outcome.NO_MEMORY: "no memory",
    Outcome.GONE: "gone with its process",
}


def word(outcome: str) -> str:
    """Return how an outcome is called for people; one that is new here keeps its name."""
    return _WORDS.get(Outcome(outcome), outcome) if outcome in set(Outcome) else outcome


def in_order(sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield outcomes with their bytes, always in the same order, without those that are zero."""
    known = [*Outcome]
    for name in [*known, *(name for name in sizes if name not in set(known))]:
        if sizes.get(name):
            yield str(name), sizes[name]


def left_behind(job: JobInfo) -> str:
    """Return e.g. ``12MiB are left: 8MiB busy, 4MiB pinned``."""
    reasons = ", ".join(
        f"{format_size(size)} {word(name)}"
        for name, size in in_order(job.outcomes)
        if name not in set(Outcome) or Outcome(name).is_left
    )
    return f"{format_size(job.left_behind)} are left where they should not be: {reasons}"


def result(job: JobInfo) -> list[Table]:
    """Return what became of the job as a table; none where it had nothing to move."""
    rows = list(_results(job))
    return [Table(columns=columns("RESULT", ""), rows=rows)] if rows else []


def _results(job: JobInfo) -> Iterator[Row]:
    for name, size in in_order(job.outcomes):
        yield word(name), format_size(size)
    if job.processes or job.gone:
        yield "processes", job.processes
        yield "ended meanwhile", job.gone
    if job.foreign is not None:
        yield "foreign bytes", format_size(job.foreign)
    if job.longest_call:
        yield "longest call", duration(job.longest_call)
    if job.outcomes and job.started is not None and job.ended is not None:
        yield "took", duration(max(0.0, job.ended - job.started))


def jobs_table(jobs: list[JobInfo]) -> Table:
    """Return jobs as lines of a table."""
    rows: list[Row] = [
        [
            job.id,
            job.state,
            _percent(job),
            format_size(job.outcomes.get(Outcome.MOVED, 0)),
            format_size(job.left_behind),
            speed(job) or None,
            None if job.eta is None else duration(job.eta),
            job.what,
        ]
        for job in jobs
    ]
    heads = columns(">ID", "STATE", ">DONE", ">MOVED", ">LEFT BEHIND", ">RATE", ">ETA", "WHAT")
    return Table(columns=heads, rows=rows)


def job_table(job: JobInfo) -> Table:
    """Return all that is known of a job."""
    rows: list[Row] = [("what", job.what), ("state", job.state)]
    if job.ended is None:
        rows += [
            ("phase", job.phase or None),
            ("done", f"{amount(job)} ({_percent(job)})" if job.total else None),
            ("rate", speed(job) or None),
            ("ETA", remaining(job) or None),
        ]
    if job.error is not None:
        rows.append(("error", f"[{job.error.code}] {job.error.message}"))
    return Table(columns=columns("JOB", str(job.id)), rows=[*rows, *_results(job)])


def _percent(job: JobInfo) -> str | None:
    found = percent(job)
    return None if found is None else f"{found}%"
