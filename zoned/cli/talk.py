# SPDX-License-Identifier: Apache-2.0
"""Talking to the daemon from a command, with a sign of life where it takes long."""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds after which a person wants to know that something is going on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the options before the command said."""

    socket: str | PathLike[str]


def pass_session(command: Callable[..., None]) -> Callable[..., None]:
    """Hand a command the Session as its first argument."""
    return click.make_pass_decorator(Session)(command)


def call(
    session: Session, method: str, result: type[T], /, *, doing: str = "", **parameters: Any
) -> T:
    """Call a method of the daemon, e.g. ``call(session, "Zones.List", list[ZoneInfo])``.

    Parameters that are None are left out. Raises what `Client` does.
    """
    # Commands that need no daemon do without it.
    from zoned.api.client import Client

    given = {key: value for key, value in parameters.items() if value is not None}
    with Client(session.socket) as client, sign_of_life(doing):
        return client.call(method, result, **given)


@contextlib.contextmanager
def sign_of_life(doing: str) -> Iterator[None]:
    """Show a spinner with what is being done, once it takes over a second, on a terminal."""
    if not doing or not sys.stderr.isatty():
        yield
        return
    shown = contextlib.ExitStack()
    timer = threading.Timer(_PATIENCE, lambda: shown.enter_context(_spinner(doing)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        shown.close()


def _spinner(doing: str) -> contextlib.AbstractContextManager[object]:
    from rich.console import Console

    return Console(stderr=True).status(doing)
