# SPDX-License-Identifier: Apache-2.0
"""Foreign bytes: what a zone's members use and what is charged to other groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.kernel.process import anon_pss, anon_rss

if TYPE_CHECKING:
    from zoned.kernel.root import Root
    from zoned.model.zone import Group

_NOISE = 1 << 20
"""The kernel folds per-CPU counters late; a smaller difference says nothing."""


def foreign_bytes(root: Root, group: Group | None) -> int | None:
    """Return the anonymous memory that members use and that is charged to other groups.

    Charges never follow a process in cgroup v2 (cgroup-v2.rst, "Memory Ownership"). The quick sum
    of resident sizes counts pages that members share more than once, so only where it is larger
    than what is charged the exact, slower walk (smaps_rollup) is made.
    """
    if group is None or group.anon is None:
        return None
    quick = sum(anon_rss(root, pid) or 0 for pid in group.pids)
    if quick - group.anon < _NOISE:
        return 0
    exact = sum(anon_pss(root, pid) or 0 for pid in group.pids)
    return exact - group.anon if exact - group.anon >= _NOISE else 0
