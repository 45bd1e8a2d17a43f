# SPDX-License-Identifier: Apache-2.0
"""The record of jobs on disk: what runs is there before it begins, and how it ended stays a while.

It lies beside the zones, so that a job that a reboot cut off is not silently forgotten.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoned.errors import JobInterrupted, MachineError
from zoned.kernel.state_file import damaged, load_json, save_json
from zoned.model.job import Job, JobError, JobKind, JobRequest, JobState, Progress
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

KEPT = 50
"""Jobs that are over and still shown."""

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A job as it is on disk."""

    job: Job
    cancelling: bool = False
    """whether its end was asked for, which a restart must not undo"""


class JobBook:
    """All jobs that are known. Changed by one thread at a time; reading needs no lock."""

    def __init__(
        self, folder: Path, boot_id: str | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = folder / "jobs.json"
        self._boot_id = boot_id
        self._clock = clock
        self._next = 1
        self._records: Mapping[int, Record] = MappingProxyType(self._load())

    @property
    def jobs(self) -> Mapping[int, Job]:
        """Return the jobs by id: a snapshot that later changes leave alone."""
        return {number: record.job for number, record in self._records.items()}

    def get(self, number: int) -> Job | None:
        """Return a job, None where there is none of that number."""
        record = self._records.get(number)
        return record.job if record else None

    def open(self, request: JobRequest, uid: int) -> Job:
        """Write down a new job and return it, queued. Raises MachineError; then there is none."""
        job = Job(id=self._next, request=request, uid=uid, created=self._clock())
        records = {**self._records, job.id: Record(job=job)}
        self._save(records, job.id + 1)
        self._records, self._next = MappingProxyType(records), job.id + 1
        return job

    def put(self, job: Job, *, cancelling: bool = False) -> None:
        """Write down how a job is now.

        A job cannot be undone because the disk is full: what cannot be written is logged, and true
        in memory all the same.
        """
        records = dict(self._records)
        records[job.id] = Record(job=job, cancelling=cancelling and not job.state.is_over)
        records = _without_old_ones(records)
        try:
            self._save(records, self._next)
        except MachineError as error:
            _log.error("job %d is %s, but %s", job.id, job.state.value, error)
        self._records = MappingProxyType(records)

    def resumable(self) -> tuple[Record, ...]:
        """Return what is to be taken up again, oldest first."""
        records = (self._records[number] for number in sorted(self._records))
        return tuple(record for record in records if not record.job.state.is_over)

    def _save(self, records: Mapping[int, Record], following: int) -> None:
        data = {
            "version": _VERSION,
            "boot_id": self._boot_id,
            "next": following,
            "jobs": [record_to_json(records[number]) for number in sorted(records)],
        }
        save_json(self._path, data)

    def _load(self) -> dict[int, Record]:
        data = load_json(self._path)
        if data is None:
            return {}
        try:
            version = data["version"]
            if version != _VERSION:
                raise ValueError(f"it is of version {version!r}")
            records = {found.job.id: found for found in map(record_from_json, data["jobs"])}
            self._next = max([int(data["next"]), *(number + 1 for number in records)])
            same_boot = data["boot_id"] == self._boot_id
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise damaged(self._path, str(error)) from error
        return records if same_boot else self._interrupt(records.values())

    def _interrupt(self, records: Iterable[Record]) -> dict[int, Record]:
        """Close what another boot left open: neither its processes nor its groups are there."""
        why = JobError(
            code=JobInterrupted.code,
            message="the machine was started anew during it",
            hint="ask for it again, if it still makes sense",
        )
        closed = {
            record.job.id: record
            if record.job.state.is_over
            else Record(
                job=replace(record.job, state=JobState.INTERRUPTED, ended=self._clock(), error=why)
            )
            for record in records
        }
        return _without_old_ones(closed)


def _without_old_ones(records: Mapping[int, Record]) -> dict[int, Record]:
    over = sorted(number for number, record in records.items() if record.job.state.is_over)
    old = set(over[:-KEPT])
    return {number: record for number, record in records.items() if number not in old}


def record_to_json(record: Record) -> dict[str, Any]:
    """Return the record as plain data."""
    job, request = record.job, record.job.request
    return {
        "id": job.id,
        "kind": request.kind.value,
        "what": request.what,
        "zones": list(request.zones),
        "parameters": dict(request.parameters),
        "uid": job.uid,
        "state": job.state.value,
        "cancelling": record.cancelling,
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "progress": _progress_to_json(job.progress),
        "error": job.error and [job.error.code, job.error.message, job.error.hint],
    }


def record_from_json(data: dict[str, Any]) -> Record:
    """Return what `record_to_json` wrote. Raises KeyError, TypeError, ValueError."""
    request = JobRequest(
        kind=JobKind(data["kind"]),
        what=_text(data["what"]),
        zones=tuple(map(_text, data["zones"])),
        parameters=dict(data["parameters"]),
    )
    job = Job(
        id=int(data["id"]),
        request=request,
        uid=int(data["uid"]),
        state=JobState(data["state"]),
        progress=_progress_from_json(data["progress"]),
        created=float(data["created"]),
        started=_maybe(data["started"], float),
        ended=_maybe(data["ended"], float),
        error=_maybe(data["error"], _error_from_json),
    )
    return Record(job=job, cancelling=bool(data["cancelling"]))


def _progress_to_json(progress: Progress) -> dict[str, Any]:
    return {
        "phase": progress.phase,
        "total": progress.total,
        "outcomes": {what.value: size for what, size in progress.outcomes.items()},
        "processes": progress.processes,
        "gone": progress.gone,
        "longest_call": progress.longest_call,
        "notes": list(progress.notes),
        "foreign": progress.foreign,
    }


def _progress_from_json(data: dict[str, Any]) -> Progress:
    return Progress(
        phase=_text(data["phase"]),
        total=int(data["total"]),
        outcomes={Outcome(what): int(size) for what, size in data["outcomes"].items()},
        processes=int(data["processes"]),
        gone=int(data["gone"]),
        longest_call=float(data["longest_call"]),
        notes=tuple(map(_text, data["notes"])),
        foreign=_maybe(data["foreign"], int),
    )


def _error_from_json(data: Any) -> JobError:
    code, message, hint = map(_text, data)
    return JobError(code=code, message=message, hint=hint)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _maybe(value: Any, convert: Callable[[Any], Any]) -> Any:
    return None if value is None else convert(value)
