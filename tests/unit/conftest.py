# SPDX-License-Identifier: Apache-2.0
"""What unit tests share."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.unit.machines import unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# How long an example takes says nothing on a busy machine, and a run must be repeatable.
settings.register_profile("zoned", deadline=None, database=None, derandomize=True)
settings.load_profile("zoned")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpack recorded machines by name, each once, and return where sys/ and proc/ are."""
    return functools.cache(lambda name: unpack(name, tmp_path_factory.mktemp("machine")))
