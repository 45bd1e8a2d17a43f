# SPDX-License-Identifier: Apache-2.0
"""Where the hierarchies of cgroup v2 and v1 are mounted. Source: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.kernel.root import Root

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMounts:
    """The mounted cgroup file systems."""

    unified: tuple[Path, ...] = ()
    v1: Mapping[str, Path] = field(default_factory=dict)
    """controller -> mount point; controllers that are mounted together share one"""


def cgroup_mounts(root: Root) -> CgroupMounts:
    """Return the cgroup file systems that this process sees."""
    unified: list[Path] = []
    v1: dict[str, Path] = {}
    for line in (read_text(root.proc / "self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or len(after) < 3:
            continue
        place = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), before[4]))
        if after[0] == "cgroup2":
            unified.append(place)
        elif after[0] == "cgroup":
            for option in after[2].split(","):
                v1.setdefault(option, place)
    return CgroupMounts(unified=tuple(unified), v1=v1)
