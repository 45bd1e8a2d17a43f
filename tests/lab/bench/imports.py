# SPDX-License-Identifier: Apache-2.0
"""Reading what `python -X importtime` writes. Pure. Source: python3(1), -X importtime."""

import re
from dataclasses import dataclass

_LINE = re.compile(r"^import time:\s*(\d+) \|\s*(\d+) \|(\s+)(\S+)$")
_INDENT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module. Times are seconds; `total` includes what it imports itself."""

    module: str
    own: float
    total: float
    depth: int


def parse(text: str) -> list[Import]:
    """Return the imports in their order; lines of anything else are passed over."""
    return [
        Import(
            module=match[4],
            own=int(match[1]) / 1e6,
            total=int(match[2]) / 1e6,
            depth=(len(match[3]) - 1) // _INDENT,
        )
        for match in map(_LINE.match, text.splitlines())
        if match
    ]


def slowest(imports: list[Import], most: int = 10) -> list[Import]:
    """Return those that take longest with what they import, the longest first."""
    return sorted(imports, key=lambda each: each.total, reverse=True)[:most]


def seconds(imports: list[Import]) -> float:
    """Return how long all imports took."""
    return sum(each.own for each in imports)
