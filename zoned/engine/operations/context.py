# SPDX-License-Identifier: Apache-2.0
"""What every operation works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.jobs.control import Body
    from zoned.engine.machine import Machine
    from zoned.engine.reconcile import Reconciler
    from zoned.model.job import JobRequest
    from zoned.model.migration import Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The machine and what brings it to what is wanted."""

    machine: Machine
    reconciler: Reconciler


class Operation(Protocol):
    """One kind of job. `prepare` and the changes of `body` run in the thread that may change the
    machine, `body` itself in the job's own.
    """

    def prepare(self, parameters: Mapping[str, Any]) -> JobRequest:
        """Check what is asked for. Raises ZonedError; nothing was changed then."""

    def body(self, request: JobRequest) -> Body:
        """Return the work. It may have been begun before: then it goes on."""


class Surveyor(Operation, Protocol):
    """An operation that can tell beforehand what it would do."""

    def survey(self, parameters: Mapping[str, Any]) -> tuple[str, Survey]:
        """Return what would be done, and what the pages say to it. Changes nothing."""
