# SPDX-License-Identifier: Apache-2.0
"""From raw samples to figures: medians, spread, and ratios against a peer. Pure.

A figure is a ratio because seconds tell nothing: the guest is emulated on a machine that others
use too. The samples of one round were taken one right after the other, so what slows a machine
down for longer than a round slows both, and falls out of that round's ratio.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DIGITS = 4
"""Significant digits in the JSON; the measurement has fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of some values, their quartiles, and how many they were."""

    median: float
    q1: float
    q3: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """How a subject compares with a peer. `values` has the raw medians of the two, in `unit`.

    `ratio` is None where the peer used nothing at all, so that there is nothing to divide by.
    """

    subject: str
    peer: str
    ratio: Spread | None
    unit: str
    values: Mapping[str, Spread]


def spread(values: Sequence[float]) -> Spread:
    """Summarise values. Raises ValueError where there are none."""
    if not values:
        msg = "there is nothing to summarise"
        raise ValueError(msg)
    if len(values) == 1:
        return Spread(median=values[0], q1=values[0], q3=values[0], n=1)
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median=median, q1=q1, q3=q3, n=len(values))


def compare(
    samples: Mapping[str, Sequence[float]], subject: str, peer: str, unit: str = "s"
) -> Figure:
    """Compare two contestants round by round. `samples` has one value a round for each.

    Raises ValueError where they did not take part in the same rounds.
    """
    mine, theirs = samples[subject], samples[peer]
    if len(mine) != len(theirs):
        msg = f"{subject} has {len(mine)} rounds, {peer} has {len(theirs)}"
        raise ValueError(msg)
    ratio = None
    if all(theirs):
        ratio = spread([one / other for one, other in zip(mine, theirs, strict=True)])
    values = {subject: spread(mine), peer: spread(theirs)}
    return Figure(subject=subject, peer=peer, ratio=ratio, unit=unit, values=values)


def compare_all(
    samples: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]], unit: str = "s"
) -> list[Figure]:
    """Compare each pair of (subject, peer)."""
    return [compare(samples, subject, peer, unit) for subject, peer in pairs]


def to_json(report: object) -> str:
    """Return a report of dataclasses, mappings, lists and numbers as JSON text."""
    return json.dumps(_plain(report), indent=2)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return _rounded(value) if isinstance(value, float) else value


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
