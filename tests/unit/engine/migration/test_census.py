# SPDX-License-Identifier: Apache-2.0
"""The census counts as a dictionary would."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoned.engine.migration.census import Census

# Frames beside each other, at the borders of tables, and far apart.
PFNS = st.one_of(
    st.integers(0, 40), st.integers(32760, 32780), st.integers(65530, 65540), st.just((1 << 52) - 1)
)


@given(st.lists(st.lists(PFNS, max_size=30), max_size=8))
def test_it_counts_as_a_dictionary(looks: list[list[int]]) -> None:
    census, known = Census(), dict[int, int]()
    for look in looks:
        pfns = np.array(look, np.uint64)
        expected = [pfn not in known and pfn not in look[:at] for at, pfn in enumerate(look)]
        assert census.add(pfns).tolist() == expected
        for pfn in look:
            known[pfn] = known.get(pfn, 0) + 1
        assert census.count(pfns).tolist() == [known[pfn] for pfn in look]
    rest = np.array([3, 99, 32768, 7], np.uint64)
    assert census.count(rest).tolist() == [known.get(pfn, 0) for pfn in rest.tolist()]


def test_a_page_that_is_mapped_all_too_often_stays_known() -> None:
    census = Census()
    page = np.full(40_000, 5, np.uint64)
    for _ in range(3):
        census.add(page)
    assert census.count(page[:1]).tolist() == [65535]
    assert not census.add(page[:1]).any()
