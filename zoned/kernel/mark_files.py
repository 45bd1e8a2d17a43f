# SPDX-License-Identifier: Apache-2.0
"""Empty files whose being there is what they say, for rules of udev (``TEST``, udev(7))."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zoned.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def keep_marks(folder: Path, names: Collection[str]) -> None:
    """Have files of these names in the folder and no others; without any there is no folder.

    Raises MachineError.
    """
    try:
        there = _there(folder)
        for name in there - set(names):
            (folder / name).unlink(missing_ok=True)
        if names:
            folder.mkdir(parents=True, exist_ok=True)
            for name in set(names) - there:
                (folder / name).touch()
        elif folder.exists():
            folder.rmdir()
    except OSError as error:
        raise MachineError(f"cannot keep {folder}: {error.strerror}") from error


def _there(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names are all that is wanted
    except FileNotFoundError:
        return set()
