# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma prepare`: memory for a device before its driver has it, for udev."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, cast

import click

from zoned.api.types import JobInfo
from zoned.cli.talk import Session, pass_session
from zoned.errors import ZonedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

DEADLINE = 5.0
"""Seconds for all of it: a device without its memory is better than a boot that hangs."""

_LEAST = 0.5


class _OutOfTime(Exception):
    """The deadline has passed."""


@click.command()
@click.argument("device", metavar="DEVICE")
@pass_session
def prepare(session: Session, device: str) -> None:
    """Have the daemon reserve what the policy wants for a device, and wait for it.

    Made for a rule of udev, which comes before the one that loads the device's driver; DEVICE is
    its PCI address, like 0000:3b:00.0. Whatever happens is told in one line, and the exit status is
    always 0: it waits for 5 seconds in all, and not at all where no daemon runs. What takes longer
    goes on in the daemon.
    """
    began = time.monotonic()
    try:
        with _deadline():
            told = _prepared(session.socket, device)
    except _OutOfTime:
        told = "not ready in time; the daemon goes on with it"
    except ZonedError as error:
        told = f"[{error.code}] {error.message}"
    click.echo(f"{device}: {told} ({time.monotonic() - began:.2f} s)")


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """Raise _OutOfTime when the time is up, whatever is being waited for."""

    def ring(*_: object) -> None:
        raise _OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    # What it took to get here was work of the processor's, and counts.
    left = max(_LEAST, DEADLINE - time.process_time())
    timer = signal.setitimer(signal.ITIMER_REAL, left)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _prepared(socket: str | PathLike[str], device: str) -> str:
    """Return what became of it. Raises ZonedError."""
    # The time that this takes to load counts.
    from zoned.api.client import Client

    with Client(socket) as client:
        job = client.call(
            "Dma.Prepare", cast("type[JobInfo | None]", JobInfo | None), device=device
        )
        if job is None:
            return "there is nothing to do"
        *_, last = client.stream("Jobs.Watch", JobInfo, id=job.id)
    return _told(last)


def _told(job: JobInfo) -> str:
    why = "" if job.error is None else f": [{job.error.code}] {job.error.message}"
    return "; ".join([f"job {job.id} ({job.what}) is {job.state}{why}", *job.notes])
