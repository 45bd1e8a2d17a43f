# SPDX-License-Identifier: Apache-2.0
"""What the tests of jobs share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_jobs import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a runner that is stopped at the end, and see that none of its threads is left."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("zoned-job")]
