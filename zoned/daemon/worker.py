# SPDX-License-Identifier: Apache-2.0
"""Threads for what blocks: one that changes the machine, a few that only look."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from zoned.engine.jobs.control import Suspended

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_READERS = 4


class Worker:
    """Runs blocking work beside the event loop."""

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="zoned-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="zoned-reader")
        self.prepare: Callable[[], object] = lambda: None
        """what each thread does before its next piece of work; set by the daemon"""

    async def change(self, work: Callable[[], _T]) -> _T:
        """Run work that may change the machine: one piece at a time, each to its end.

        A caller that goes away does not stop it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    def change_and_wait(self, work: Callable[[], _T]) -> _T:
        """Do as `change` does, for the threads of jobs. Never to be called by the one that changes.

        Raises Suspended where the daemon ends before the work's turn came.
        """
        self.prepare()
        try:
            future = self._writer.submit(work)
        except RuntimeError as error:
            raise Suspended from error
        try:
            return future.result()
        except CancelledError as error:
            raise Suspended from error
        finally:
            # The work itself may have been what there is to prepare for.
            self.prepare()

    async def look(self, work: Callable[[], _T]) -> _T:
        """Run work that only reads."""

        def prepared() -> _T:
            self.prepare()
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._readers, prepared)

    def stop(self) -> None:
        """Wait for the work under way; what has not begun is dropped."""
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)
