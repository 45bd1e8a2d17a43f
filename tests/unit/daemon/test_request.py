# SPDX-License-Identifier: Apache-2.0
"""Arguments of a request: defaults, and every mistake with its own error."""

from __future__ import annotations

from typing import Any

import pytest

from zoned.api.types import ZoneRequest
from zoned.daemon.request import job_parameters, surveyed_kind, zone_spec
from zoned.errors import BadInput, BadList, BadName, BadSize, UsageError
from zoned.model.job import JobKind
from zoned.model.zone import Backing, ZoneSpec

GIB = 1 << 30
PLAIN: dict[str, Any] = {
    "name": "db",
    "size": GIB,
    "nodes": None,
    "near": None,
    "backing": None,
    "cpus": None,
    "exclusive_cpus": False,
    "swap": None,
    "users": [],
}


def test_defaults() -> None:
    assert zone_spec(ZoneRequest(**PLAIN)) == ZoneSpec(name="db", size=GIB)


def test_everything() -> None:
    given = PLAIN | {
        "nodes": "0,2",
        "backing": "limit",
        "cpus": "none",
        "exclusive_cpus": True,
        "swap": "max",
        "users": ["jo"],
    }
    assert zone_spec(ZoneRequest(**given)) == ZoneSpec(
        name="db",
        size=GIB,
        nodes="0,2",
        backing=Backing.LIMIT,
        cpus="none",
        exclusive_cpus=True,
        swap=None,
        users=("jo",),
    )
    assert zone_spec(ZoneRequest(**PLAIN | {"near": "node:1", "swap": "1GiB"})).swap == GIB


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": ""}, BadName),
        ({"name": "a" * 64}, BadName),
        ({"name": "a\n"}, BadName),
        ({"name": "a/b"}, BadName),
        ({"size": 0}, BadSize),
        ({"size": -1}, BadSize),
        ({"size": 1}, BadSize),
        ({"size": 1 << 64}, BadSize),
        ({"nodes": ""}, BadList),
        ({"nodes": "x"}, BadList),
        ({"nodes": "0", "near": "node:0"}, UsageError),
        ({"near": "moon"}, BadInput),
        ({"backing": "paper"}, BadInput),
        ({"cpus": "some"}, BadList),
        ({"swap": "much"}, BadSize),
        ({"users": ["jo", "a b"]}, BadName),
    ],
)
def test_mistakes(change: dict[str, Any], error: type[BadInput]) -> None:
    with pytest.raises(error):
        zone_spec(ZoneRequest(**PLAIN | change))


def test_what_was_given_of_a_job() -> None:
    given = {"name": "db", "pid": None, "kill": False, "stall": 0.5, "movers": 0}
    assert job_parameters(given) == {"name": "db", "kill": False, "stall": 0.5, "movers": 0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number(value: float) -> None:
    with pytest.raises(UsageError, match="rate is no number"):
        job_parameters({"name": "db", "rate": value})


def test_what_can_be_looked_at_ahead() -> None:
    kinds = [surveyed_kind(word) for word in ("migrate", "move", "attach")]
    assert kinds == [JobKind.MIGRATE, JobKind.MOVE, JobKind.ATTACH]
    for word in ("detach", "destroy", "", "MOVE"):
        with pytest.raises(UsageError) as error:
            surveyed_kind(word)
        assert "migrate, move, attach" in error.value.hint
