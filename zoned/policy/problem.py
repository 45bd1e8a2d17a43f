# SPDX-License-Identifier: Apache-2.0
"""A mistake in a policy file, and how it is put in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where in a document: keys of mappings as text, positions in lists as numbers."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_LONGEST = 60


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; both numbers count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, where, and what to do about it."""

    file: str
    place: Place | None = None
    """None where the file as a whole is meant"""
    field: str = ""
    message: str
    hint: str = ""

    @property
    def order(self) -> tuple[str, Place, str, str]:
        """What problems are sorted by."""
        return self.file, self.place or Place(0, 0), self.field, self.message

    def __str__(self) -> str:
        where = f"{self.file}:{self.place.line}" if self.place else self.file
        parts = [where, self.field, self.message] if self.field else [where, self.message]
        text = ": ".join(parts) + (f" ({self.hint})" if self.hint else "")
        # File names can hold anything; a problem is one line that every terminal can print.
        return "".join(letter if letter.isprintable() else "?" for letter in text)


def shown(value: object) -> str:
    """Return a value from a file as it may stand in a message: quoted, escaped and short."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def field_name(path: Path) -> str:
    """Return the path as people write it, e.g. ``zones.db.users[1]``; "document" for all of it."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            key = step if _PLAIN_KEY.fullmatch(step) else shown(step)
            name += f".{key}" if name else key
    return name or "document"
