# SPDX-License-Identifier: Apache-2.0
"""What the tests of memory blocks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.blocks.stage import Stage, make_stage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return make_stage(tmp_path, monkeypatch)
