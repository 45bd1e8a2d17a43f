# SPDX-License-Identifier: Apache-2.0
"""What the engine's tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fakes import World, make_world, started

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.engine.engine import Engine


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a machine of two nodes of 4 GiB with hard protection and without systemd."""
    return make_world(tmp_path)


@pytest.fixture
def engine(world: World) -> Engine:
    """Return an engine on that machine that was started, without a policy."""
    return started(world)
