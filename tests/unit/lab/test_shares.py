# SPDX-License-Identifier: Apache-2.0
"""Which tests stay together when several processes run them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[2] / "conftest.py"


@pytest.mark.parametrize(
    ("nodeid", "share"),
    [
        ("tests/lab/test_zones.py::test_it[bookworm]", "bookworm"),
        ("tests/lab/test_migration.py::test_it[trixie-small-anonymous]", "trixie"),
        ("tests/lab/test_lab_itself.py::test_it", "lab"),
        ("tests/lab/test_dma_real.py::test_it[trixie]", "trixie, other machines"),
        ("tests/lab/test_install.py::test_it[bookworm]", "bookworm, from nothing"),
        ("tests/host/test_daemon.py::test_it[a-b]", "host"),
        ("tests/unit/test_units.py::test_it[trixie]", "tests/unit/test_units.py"),
    ],
)
def test_share(nodeid: str, share: str) -> None:
    spec = importlib.util.spec_from_file_location("shares", _FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.share_of(nodeid) == share
