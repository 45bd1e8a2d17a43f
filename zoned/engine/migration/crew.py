# SPDX-License-Identifier: Apache-2.0
"""Threads that work off a list together. ctypes lets go of the interpreter during a call."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")


def work_off(items: Iterable[_T], step: Callable[[_T], None], threads: int) -> None:
    """Do a step for each item, by several threads, while this one goes on with the list.

    The list is never more than two items for each thread ahead. The first exception ends all of
    them and is raised.
    """
    ahead, failed = threading.Semaphore(3 * threads), threading.Event()

    def work(item: _T) -> None:
        done = failed.is_set()
        try:
            if not done:
                step(item)
                done = True
        finally:
            if not done:
                failed.set()
            ahead.release()

    futures = []
    with ThreadPoolExecutor(threads, thread_name_prefix="zoned-mover") as pool:
        for item in items:
            ahead.acquire()
            if failed.is_set():
                break
            futures.append(pool.submit(work, item))
    for future in futures:
        future.result()
