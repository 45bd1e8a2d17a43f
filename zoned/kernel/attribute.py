# SPDX-License-Identifier: Apache-2.0
"""Attributes of devices, of which any may be missing, secret or nonsense: that is "unknown".

One odd device must not keep a list of hundreds from being made, so nothing here raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from pathlib import Path


def attribute(path: Path) -> str | None:
    """Return the attribute's text, or None where it cannot be read or is empty."""
    try:
        return read_text(path) or None
    except MachineError:
        return None


def number(path: Path) -> int | None:
    """Return the attribute's number, decimal or with ``0x``; None where it is none, or negative."""
    text = attribute(path) or ""
    try:
        found = int(text, 16 if text[:2].lower() == "0x" else 10)
    except ValueError:
        return None
    return found if found >= 0 else None


def link_name(path: Path) -> str | None:
    """Return the name of what a link leads to, e.g. of a driver; None where there is no link."""
    try:
        return path.readlink().name or None
    except OSError:
        return None
