# SPDX-License-Identifier: Apache-2.0
"""The order of writes, and what reading back may show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoned.errors import BelowUse, NotAsWritten
from zoned.kernel.cgroup.plan import Field, changes, check_fits, check_written, file_text
from zoned.model.zone import Limits

SIZES = st.none() | st.integers(min_value=0, max_value=1 << 40)
SETS = st.none() | st.frozensets(st.integers(min_value=0, max_value=9), min_size=1)
LIMITS = st.builds(
    Limits,
    max=SIZES,
    high=SIZES,
    min=st.integers(min_value=0, max_value=1 << 40),
    swap=SIZES,
    mems=SETS,
    cpus=SETS,
)


def test_raising_goes_from_max_to_min() -> None:
    now = Limits(max=10, high=8, min=5, swap=0)
    new = Limits(max=20, high=16, min=9, swap=0, cpus=frozenset({1}), mems=frozenset({1}))

    assert changes(now, new) == (Field.MAX, Field.HIGH, Field.MIN, Field.CPUS, Field.MEMS)
    assert changes(new, replace(new, max=None, high=None, min=0))[0] is Field.MAX


def test_lowering_goes_from_min_to_max() -> None:
    now = Limits(max=None, high=None, min=9)

    assert changes(now, Limits(max=20, high=10, min=5)) == (Field.MIN, Field.HIGH, Field.MAX)


@given(LIMITS, LIMITS)
def test_what_differs_is_written_once_and_nothing_else(now: Limits, new: Limits) -> None:
    fields = changes(now, new)

    assert len(set(fields)) == len(fields)
    assert set(fields) == {name for name in Field if getattr(now, name) != getattr(new, name)}
    assert changes(new, new) == ()
    if Field.MEMS in fields:
        assert fields[-1] is Field.MEMS


def test_texts() -> None:
    assert file_text(Field.MAX, None) == "max"
    assert file_text(Field.MIN, 4096) == "4096"
    assert file_text(Field.MEMS, frozenset({0, 1, 5})) == "0-1,5"
    assert file_text(Field.CPUS, None) == "\n"


def test_below_use() -> None:
    check_fits("db", None, 100)
    check_fits("db", 100, None)
    check_fits("db", 100, 100)
    with pytest.raises(BelowUse, match="'db' uses 101B, more than 100B"):
        check_fits("db", 100, 101)


def test_every_difference_is_named() -> None:
    found = Limits(max=4096, min=0, mems=frozenset({0}))
    wanted = Limits(max=8192, min=0, mems=frozenset({1}), swap=7)

    check_written("/zone/db", found, wanted, [Field.MIN])
    with pytest.raises(NotAsWritten) as caught:
        check_written("/zone/db", found, wanted, Field)
    text = str(caught.value)
    assert "max is 4096 (4KiB) instead of 8192 (8KiB)" in text
    assert "mems is 0 instead of 1" in text
    assert "swap is no limit instead of 7 (7B)" in text
    assert "min" not in text
