# SPDX-License-Identifier: Apache-2.0
"""Where the project is, and where the lab keeps what takes long to make."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[3]


def cache_folder() -> Path:
    """Where images are kept: $ZONED_LAB_CACHE, else /var/cache/zoned-lab."""
    return Path(os.environ.get("ZONED_LAB_CACHE") or "/var/cache/zoned-lab")


@contextmanager
def locked(what: str) -> Iterator[None]:
    """Be the only process that makes `what` in the cache; wait for another one that does."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f"lock-{what}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
