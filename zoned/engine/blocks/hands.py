# SPDX-License-Identifier: Apache-2.0
"""Who changes memory blocks: a job, or the thread that changes the machine itself."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Protocol, TypeVar

from zoned.errors import TryLater

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zoned.model.migration import Outcome

T = TypeVar("T")

_log = logging.getLogger(__name__)
_LOOK = 0.5


class Hands(Protocol):
    """What work on memory blocks needs of a job. `JobControl` has it all."""

    @property
    def name(self) -> str: ...
    @property
    def is_paused(self) -> bool: ...
    @property
    def ends(self) -> bool: ...
    def phase(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def checkpoint(self) -> None: ...
    def expect(self, size: int) -> None: ...
    def count(self, outcome: Outcome, size: int) -> None: ...
    def change(self, work: Callable[[], T]) -> T: ...


class Direct:
    """Hands without a job, for the thread that changes the machine."""

    @property
    def name(self) -> str:
        """See JobControl."""
        return "the daemon itself"

    @property
    def is_paused(self) -> bool:
        """See JobControl. Nobody pauses it."""
        return False

    @property
    def ends(self) -> bool:
        """See JobControl. Nobody ends it."""
        return False

    def phase(self, text: str) -> None:
        """See JobControl. Nobody watches."""

    def note(self, text: str) -> None:
        """See JobControl."""
        _log.warning("%s", text)

    def checkpoint(self) -> None:
        """See JobControl. Nobody cancels."""

    def expect(self, size: int) -> None:
        """See JobControl."""

    def count(self, outcome: Outcome, size: int) -> None:
        """See JobControl."""

    def change(self, work: Callable[[], T]) -> T:
        """See JobControl."""
        return work()


class Turn:
    """One at a time: the kernel changes one block after the other, and so does zoned."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: Hands | None = None

    @contextlib.contextmanager
    def taken(self, hands: Hands) -> Iterator[None]:
        """Wait for the turn, as long as it takes. Raises what a checkpoint raises.

        Meanwhile the phase tells who has it. One who is paused keeps it, for blocks may be on their
        way then.
        """
        while not self._lock.acquire(timeout=_LOOK):
            hands.phase(_waiting_for(self._holder))
            hands.checkpoint()
        try:
            self._holder = hands
            yield
        finally:
            self._holder = None
            self._lock.release()

    @contextlib.contextmanager
    def now(self) -> Iterator[None]:
        """Take the turn at once. Raises TryLater where somebody has it."""
        if not self._lock.acquire(blocking=False):
            holder = self._holder
            whose = "a job" if holder is None else holder.name
            raise TryLater(f"{whose} works on memory blocks", hint="zonectl jobs shows it")
        try:
            self._holder = Direct()
            yield
        finally:
            self._holder = None
            self._lock.release()


def _waiting_for(holder: Hands | None) -> str:
    """Return whom one waits for; None has only just taken its turn, or given it up."""
    if holder is None:
        return "waiting for another job on memory blocks"
    paused = ", which is paused" if holder.is_paused else ""
    return f"waiting for {holder.name}{paused}: it has memory blocks in hand"
