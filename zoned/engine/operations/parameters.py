# SPDX-License-Identifier: Apache-2.0
"""The parameters that several operations have."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from zoned.engine.migration.plan import STALL, Pace
from zoned.errors import BadInput, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_STALL = 60_000
_LEAST_RATE = 0.001
_MOST_MOVERS = 16


def pace(parameters: Mapping[str, Any]) -> Pace:
    """Return how gently to move: `stall` in ms, `rate` in MB (10^6 bytes) a second, `movers`.

    Without a word on movers two are taken where the machine has four CPUs or more.
    Raises BadInput.
    """
    stall = _number(parameters, "stall", STALL * 1000, 0.1, _MOST_STALL)
    rate = _number(parameters, "rate", None, _LEAST_RATE, 1e9)
    movers = _number(parameters, "movers", default_movers(), 1, _MOST_MOVERS)
    return Pace(
        stall=(stall or 0) / 1000,
        rate=None if rate is None else rate * 1_000_000,
        movers=int(movers or 1),
    )


def default_movers() -> int:
    """Return how many threads move pages unless something else is said."""
    return 2 if (os.cpu_count() or 1) >= 4 else 1


def require_one(parameters: Mapping[str, Any], *names: str) -> str:
    """Return which one of several parameters is given. Raises UsageError."""
    given = [name for name in names if parameters.get(name) is not None]
    if len(given) != 1:
        listed = ", ".join(f"--{name}" for name in names[:-1])
        raise UsageError(f"name one of {listed} and --{names[-1]}")
    return given[0]


def _number(
    parameters: Mapping[str, Any], name: str, default: float | None, least: float, most: float
) -> float | None:
    value = parameters.get(name)
    if value is None:
        return default
    if not math.isfinite(value) or not least <= value <= most:
        raise BadInput(f"{name} {value} makes no sense", hint=f"from {least:g} to {most:g}")
    return float(value)
