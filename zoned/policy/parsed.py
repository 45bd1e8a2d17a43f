# SPDX-License-Identifier: Apache-2.0
"""A policy file that was read, with where in it everything stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned.policy.problem import Problem, field_name

if TYPE_CHECKING:
    from zoned.policy.document import Document
    from zoned.policy.problem import Path
    from zoned.policy.schema import PolicyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """A file that is YAML; without content where it says nothing or breaks the grammar."""

    document: Document
    content: PolicyFile | None

    def named(self, *path: str) -> dict[str, object]:
        """Return the mapping at that path as it is written, right or wrong; empty without one."""
        data: object = self.document.data
        for step in path:
            data = data.get(step) if isinstance(data, dict) else None
        return dict(data) if isinstance(data, dict) else {}

    def where(self, path: Path) -> str:
        """Return ``file:line`` of what stands there."""
        return f"{self.document.name}:{self.document.place(path).line}"

    def problem(self, path: Path, message: str, hint: str = "") -> Problem:
        """Return what is wrong with what stands there."""
        return Problem(
            file=self.document.name,
            place=self.document.place(path),
            field=field_name(path),
            message=message,
            hint=hint,
        )
