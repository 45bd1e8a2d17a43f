# SPDX-License-Identifier: Apache-2.0
"""From the arguments of a request to what the model calls a zone, judged as policy files are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zoned.engine.dma.allot_buffer import Asked
from zoned.errors import UsageError
from zoned.model.job import JobKind
from zoned.model.zone import Backing, ZoneSpec
from zoned.policy import values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.api.types import ZoneRequest


def zone_spec(wanted: ZoneRequest) -> ZoneSpec:
    """Return what is asked for; None is the default. Raises BadInput and its kinds."""
    if wanted.nodes is not None and wanted.near is not None:
        raise UsageError("nodes and near exclude each other")
    return ZoneSpec(
        name=values.zone_name(wanted.name),
        size=values.size(wanted.size),
        nodes=None if wanted.nodes is None else values.node_list(wanted.nodes),
        near=None if wanted.near is None else values.near(wanted.near),
        backing=values.backing(wanted.backing or Backing.RESERVE.value),
        cpus=values.cpus(wanted.cpus or "local"),
        exclusive_cpus=bool(wanted.exclusive_cpus),
        swap=values.swap(wanted.swap or "none"),
        users=tuple(values.user(user) for user in wanted.users or ()),
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


def asked_buffer(size: int, align: int | None, segments: int | None) -> Asked:
    """Return the buffer that is asked for. Raises BadSize, UsageError."""
    if align is not None and (align <= 0 or align & (align - 1) or align >= 1 << 63):
        raise UsageError(f"an alignment of {align} is no power of two")
    if segments is not None and segments < 1:
        raise UsageError(f"a buffer cannot have {segments} segments")
    return Asked(size=values.size(size), align=align or 1, segments=segments)
