# SPDX-License-Identifier: Apache-2.0
"""Questions that kinds of jobs answer."""

from __future__ import annotations

from zoned.model.job import JobKind


def test_both_kinds_of_base_zones_change_blocks() -> None:
    assert JobKind.BASE_ADD.changes_blocks
    assert JobKind.BASE_REMOVE.changes_blocks
