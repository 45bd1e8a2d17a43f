# SPDX-License-Identifier: Apache-2.0
"""Where the firmware says that memory can come and go.

Source: ACPI specification, 5.2.16 "System Resource Affinity Table (SRAT)" and 5.2.16.2 "Memory
Affinity Structure".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned.kernel.root import Root

_HEADER = 48
"""Bytes before the first structure: the table's header, and 12 that are reserved."""
_MEMORY = struct.Struct("<BBIHQQIIQ")
_TYPE, _ENABLED, _PLUGGABLE = 1, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pluggable:
    """Physical addresses at which memory can be plugged in."""

    start: int
    size: int

    def has(self, start: int, size: int) -> bool:
        """Return whether any of these bytes is in the range."""
        return start < self.start + self.size and start + size > self.start


def read_pluggable(root: Root) -> tuple[Pluggable, ...] | None:
    """Return the ranges in which memory is hot-pluggable.

    None where there is no such table, or only root may read it. Raises MachineError where it
    cannot be read for another reason.
    """
    raw = _read(root.sys / "firmware/acpi/tables/SRAT")
    return None if raw is None else tuple(_ranges(raw))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror}") from error


def _ranges(raw: bytes) -> Iterator[Pluggable]:
    at = _HEADER
    while at + 2 <= len(raw) and raw[at + 1] >= 2:
        kind, length = raw[at], raw[at + 1]
        if kind == _TYPE and length >= _MEMORY.size and at + _MEMORY.size <= len(raw):
            _, _, _, _, start, size, _, flags, _ = _MEMORY.unpack_from(raw, at)
            if flags & _ENABLED and flags & _PLUGGABLE and size:
                yield Pluggable(start=start, size=size)
        at += length
