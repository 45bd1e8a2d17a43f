# SPDX-License-Identifier: Apache-2.0
"""zonectl jobs and zonectl job: looking at jobs and steering them."""

from __future__ import annotations

import dataclasses

import click

from zoned.api.types import JobInfo
from zoned.cli.follow import conclude, follow
from zoned.cli.output import Format, emit, output_option
from zoned.cli.progress import phase
from zoned.cli.report import job_table, jobs_table
from zoned.cli.talk import Session, call, pass_session
from zoned.model.job import JobState

_METHODS = {"pause": "Jobs.Pause", "resume": "Jobs.Resume", "cancel": "Jobs.Cancel"}
_SETTLED = {
    "pause": {JobState.PAUSED},
    "resume": {JobState.RUNNING, JobState.QUEUED},
    "cancel": {JobState.CANCELLED},
}


@click.command()
@output_option
@pass_session
def jobs(session: Session, output: Format) -> None:
    """List the jobs that run or wait, and the last ones that are over.

    DONE is how much of what is to move was dealt with, MOVED what moved, LEFT BEHIND what could
    not be moved. Below stands what each job does now, or waits for. `zonectl job ID` tells more.
    """
    found = call(session, "Jobs.List", list[JobInfo])
    notes = [f"job {each.id}: {phase(each)}" for each in found if phase(each) != each.state]
    notes = notes if found else ["no jobs yet"]
    emit(output, [dataclasses.asdict(job) for job in found], jobs_table(found), notes=notes)


@click.command()
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.argument(
    "word",
    required=False,
    metavar="[pause|resume|cancel|wait]",
    type=click.Choice([*_METHODS, "wait"]),
)
@output_option
@pass_session
def job(session: Session, number: int, word: str | None, output: Format) -> None:
    """Show the job ID, steer it, or wait for it.

    What moved before a `cancel` stays where it is. `wait` follows the job as the command that
    started it does, and ends with the status that its end calls for; Ctrl-C then ends the waiting,
    not the job.
    """
    if word in _METHODS:
        _report(call(session, _METHODS[word], JobInfo, id=number), word, output)
        return
    found = call(session, "Jobs.Show", JobInfo, id=number)
    if word is None:
        emit(output, dataclasses.asdict(found), job_table(found), notes=found.notes)
        return
    conclude(follow(session, found, output), output)


def _report(found: JobInfo, word: str, output: Format) -> None:
    if output is not Format.TABLE:
        emit(output, dataclasses.asdict(found))
    elif found.state in _SETTLED[word]:
        click.echo(f"job {found.id} is {found.state}")
    else:
        # It is heard between two calls of the kernel.
        click.echo(f"job {found.id} is asked to {word}; it is {found.state} still")
