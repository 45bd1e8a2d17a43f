# SPDX-License-Identifier: Apache-2.0
"""Threads for what blocks: one that changes the machine, a few that only look."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_READERS = 4


class Worker:
    """Runs blocking work beside the event loop."""

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="zoned-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="zoned-reader")

    async def change(self, work: Callable[[], _T]) -> _T:
        """Run work that may change the machine: one piece at a time, each to its end.

        A caller that goes away does not stop it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def look(self, work: Callable[[], _T]) -> _T:
        """Run work that only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def stop(self) -> None:
        """Wait for the work under way; what has not begun is dropped."""
        self._readers.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)
