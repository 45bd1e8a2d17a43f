# SPDX-License-Identifier: Apache-2.0
"""From the arguments of a request to what the model calls a zone, judged as policy files are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zoned.errors import UsageError
from zoned.model.job import JobKind
from zoned.model.zone import Backing, ZoneSpec
from zoned.policy import values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def zone_spec(
    *,
    name: str,
    size: int,
    nodes: str | None,
    near: str | None,
    backing: str | None,
    cpus: str | None,
    exclusive_cpus: bool,
    swap: str | None,
    users: Iterable[str],
) -> ZoneSpec:
    """Return what is asked for; None is the default. Raises BadInput and its kinds."""
    if nodes is not None and near is not None:
        raise UsageError("nodes and near exclude each other")
    return ZoneSpec(
        name=values.zone_name(name),
        size=values.size(size),
        nodes=None if nodes is None else values.node_list(nodes),
        near=None if near is None else values.near(near),
        backing=values.backing(backing or Backing.RESERVE.value),
        cpus=values.cpus(cpus or "local"),
        exclusive_cpus=exclusive_cpus,
        swap=values.swap(swap or "none"),
        users=tuple(values.user(user) for user in users),
    )


def job_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given of a job's parameters. What they mean is the engine's to judge."""
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name} is no number: {value}")
    return given


_SURVEYED = (JobKind.MIGRATE, JobKind.MOVE, JobKind.ATTACH)


def surveyed_kind(word: str) -> JobKind:
    """Return the kind of job to look ahead for. Raises UsageError."""
    for kind in _SURVEYED:
        if kind.value == word:
            return kind
    known = ", ".join(kind.value for kind in _SURVEYED)
    raise UsageError(f"nothing tells what {word!r} would do", hint=f"this can be asked: {known}")
