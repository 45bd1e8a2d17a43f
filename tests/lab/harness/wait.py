# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(probe: Callable[[], T], what: str, timeout: float = 60) -> T:
    """Call `probe` until its answer is true, and return that answer.

    The pause between two calls grows from 20 ms to 500 ms. After `timeout` seconds it raises
    TimeoutError, which names `what` and shows the last answer.
    """
    deadline = time.monotonic() + timeout
    pause = 0.02
    while not (answer := probe()):
        if time.monotonic() > deadline:
            msg = f"{what}: not within {timeout:g} s (last seen: {answer!r})"
            raise TimeoutError(msg)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
    return answer
