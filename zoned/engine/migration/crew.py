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
    """Do a step for each item, by several threads; what is next is taken from `items` by one.

    The first exception ends all of them and is raised.
    """
    feed, lock, failed = iter(items), threading.Lock(), threading.Event()

    def worker() -> None:
        done = False
        try:
            while not failed.is_set():
                with lock:
                    item = next(feed, None)
                if item is None:
                    break
                step(item)
            done = True
        finally:
            if not done:
                failed.set()

    with ThreadPoolExecutor(threads, thread_name_prefix="zoned-mover") as pool:
        futures = [pool.submit(worker) for _ in range(threads)]
    for future in futures:
        future.result()
