# SPDX-License-Identifier: Apache-2.0
"""Files that are what they say by being there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zoned.errors import MachineError
from zoned.kernel.mark_files import keep_marks

if TYPE_CHECKING:
    from pathlib import Path


def test_just_these_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "run/wanted"
    keep_marks(folder, {"any", "0x1234:0x11e8"})
    assert {each.name for each in folder.iterdir()} == {"any", "0x1234:0x11e8"}
    keep_marks(folder, {"any", "0x1028"})
    assert {each.name for each in folder.iterdir()} == {"any", "0x1028"}


def test_without_any_there_is_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "wanted"
    keep_marks(folder, ())
    keep_marks(folder, {"any"})
    keep_marks(folder, ())
    assert not folder.exists()


def test_what_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "wanted").touch()
    with pytest.raises(MachineError, match=r"cannot keep .*wanted: Not a directory"):
        keep_marks(tmp_path / "wanted", {"any"})
