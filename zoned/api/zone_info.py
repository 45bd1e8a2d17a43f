# SPDX-License-Identifier: Apache-2.0
"""The one type of `zoned.api.types` that is loaded alone: making classes takes its time, and
`zonectl list` is what scripts call most.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneInfo:
    """A line of `zonectl list`. Sizes are bytes; null is "unknown"."""

    name: str
    size: int
    backing: str
    nodes: list[int]
    cpus: str | None
    state: str
    used: int | None
    foreign: int | None
    members: int
