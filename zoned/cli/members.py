# SPDX-License-Identifier: Apache-2.0
"""Programs in zones: run, attach, detach."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import click

from zoned.cli.follow import run_job
from zoned.cli.migrate import survey
from zoned.cli.options import (
    dry_run_option,
    movers_option,
    no_wait_option,
    pace_options,
    require_one,
    what_options,
)
from zoned.cli.output import Format, output_option
from zoned.cli.talk import Session, call, pass_session
from zoned.errors import UsageError
from zoned.kernel.own import initial_environment, is_service
from zoned.kernel.root import Root

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_FOUND = 127
_NOT_RUNNABLE = 126


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def run(session: Session, name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the zone NAME.

    zonectl itself becomes the command, so terminal, signals, exit status and environment are as if
    it had been started directly. Put -- before a command with options.

    \b
    zonectl run db -- postgres -D /srv/db
    """
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise UsageError("no command is named", hint="zonectl run NAME -- COMMAND")
    program = find_program(command[0])
    call(session, "Zones.Enter", NoneType, name=name)
    become(program, command)


def find_program(command: str) -> str:
    """Return the program's file; end where there is none, as env(1) and shells do."""
    program = shutil.which(command)
    if program is not None:
        return program
    exists = "/" in command and Path(command).exists()
    click.echo(f"zonectl: {command}: {'cannot be run' if exists else 'not found'}", err=True)
    sys.exit(_NOT_RUNNABLE if exists else _NOT_FOUND)


def become(program: str, command: tuple[str, ...], more: Mapping[str, str] | None = None) -> None:
    """Go on as another program, with these variables besides what zonectl was started with."""
    # Python ignores these two for itself; a program expects to find them as they were.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN if is_service() else signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    added = {os.fsencode(name): os.fsencode(value) for name, value in (more or {}).items()}
    environment = initial_environment(Root()) | added
    try:
        os.execve(program, command, environment)
    except OSError as error:
        click.echo(f"zonectl: {program}: {error.strerror}", err=True)
        sys.exit(_NOT_RUNNABLE)


@click.command()
@click.argument("name")
@what_options
@pace_options
@movers_option
@dry_run_option
@no_wait_option
@output_option
@pass_session
def attach(
    session: Session, name: str, output: Format, *, dry_run: bool, no_wait: bool, **given: Any
) -> None:
    """Make a running process, unit or cgroup a member of the zone NAME.

    Pages move to the zone's nodes while it runs; what they are charged to does not change, and is
    shown as foreign bytes. A unit is confined to the zone's nodes now and starts in the zone next
    time.
    """
    require_one(given)
    if dry_run:
        survey(session, output, "attach", no_wait=no_wait, name=name, **given)
        return
    run_job(
        session,
        "Zones.Attach",
        output=output,
        no_wait=no_wait,
        doing=f"attaching to zone {name}",
        name=name,
        **given,
    )


@click.command()
@click.argument("name")
@what_options
@pace_options
@movers_option
@no_wait_option
@output_option
@pass_session
def detach(session: Session, name: str, output: Format, *, no_wait: bool, **given: Any) -> None:
    """Put a member of the zone NAME back to where it came from."""
    require_one(given)
    run_job(
        session,
        "Zones.Detach",
        output=output,
        no_wait=no_wait,
        doing=f"detaching from zone {name}",
        name=name,
        **given,
    )
