# SPDX-License-Identifier: Apache-2.0
"""How gently to move, as it is asked for."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from zoned.engine.migration.plan import Pace
from zoned.engine.operations.parameters import default_movers, pace, require_one
from zoned.errors import BadInput, UsageError


def test_what_is_not_said_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, movers in ((None, 1), (3, 1), (4, 2), (64, 2)):
        monkeypatch.setattr(os, "cpu_count", lambda cpus=cpus: cpus)
        assert default_movers() == movers
        assert pace({}) == Pace(stall=0.010, rate=None, movers=movers)
        assert pace({"stall": None, "rate": None, "movers": None}).movers == movers


def test_units() -> None:
    assert pace({"stall": 2.5, "rate": 100, "movers": 3}) == Pace(stall=0.0025, rate=1e8, movers=3)


@pytest.mark.parametrize(
    "given", [{"stall": 0.1}, {"stall": 60_000}, {"rate": 0.001}, {"movers": 1}, {"movers": 16}]
)
def test_the_limits_are_allowed(given: dict[str, Any]) -> None:
    pace(given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stall", 0.0),
        ("stall", 0.09),
        ("stall", 60_001),
        ("stall", -1),
        ("rate", 0),
        ("rate", -5.0),
        ("rate", 1e10),
        ("movers", 0),
        ("movers", 17),
        ("stall", math.nan),
        ("rate", math.nan),
        ("rate", math.inf),
        ("stall", -math.inf),
    ],
)
def test_what_makes_no_sense(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"{name} .* makes no sense") as error:
        pace({name: value})
    assert error.value.hint.startswith("from ")


def test_exactly_one_of_several() -> None:
    assert require_one({"pid": 0, "unit": None}, "pid", "unit") == "pid"
    for given in ({}, {"pid": None}, {"pid": 1, "unit": "x"}):
        with pytest.raises(UsageError, match="name one of --pid and --unit"):
            require_one(given, "pid", "unit")
