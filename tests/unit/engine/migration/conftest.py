# SPDX-License-Identifier: Apache-2.0
"""What the tests of moving pages share."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.engine.migration.bench import Bench, connect
from tests.unit.fakes import make_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def own_page() -> Iterator[Callable[[], int]]:
    """Return what gives the address of a page of this process that is there."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        array = np.frombuffer(memory, np.uint8)
        array[0] = 1
        place = int(array.ctypes.data)
        yield lambda: place
        del array


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    found = Bench(make_world(tmp_path).machine())
    connect(found, monkeypatch)
    return found
