# SPDX-License-Identifier: Apache-2.0
"""Jobs on disk: what was written comes back, and what is damaged is left as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fake_jobs import job_request
from zoned.engine.jobs.book import KEPT, JobBook, Record, record_from_json, record_to_json
from zoned.errors import JobInterrupted, MachineError, StateDamaged
from zoned.model.job import Job, JobError, JobKind, JobRequest, JobState, Progress
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from pathlib import Path

SIZES = st.integers(0, 1 << 62)
TIMES = st.floats(0, 1e10)
PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3)
RECORDS = st.builds(
    Record,
    job=st.builds(
        Job,
        id=st.integers(1, 1 << 40),
        request=st.builds(
            JobRequest,
            kind=st.sampled_from(JobKind),
            what=st.text(),
            zones=st.lists(st.text()).map(tuple),
            parameters=st.dictionaries(st.text(), PLAIN),
        ),
        uid=st.integers(0, 1 << 32),
        state=st.sampled_from(JobState),
        progress=st.builds(
            Progress,
            phase=st.text(),
            total=SIZES,
            outcomes=st.dictionaries(st.sampled_from(Outcome), SIZES),
            processes=SIZES,
            gone=SIZES,
            longest_call=TIMES,
            notes=st.lists(st.text()).map(tuple),
            foreign=st.none() | SIZES,
        ),
        created=TIMES,
        started=st.none() | TIMES,
        ended=st.none() | TIMES,
        rate=st.none(),
        error=st.none() | st.builds(JobError, code=st.text(), message=st.text(), hint=st.text()),
    ),
    cancelling=st.booleans(),
)


@given(RECORDS)
def test_any_record_comes_back_as_it_was(record: Record) -> None:
    assert record_from_json(json.loads(json.dumps(record_to_json(record)))) == record


def put(book: JobBook, job: Job, **changes: Any) -> Job:
    fields = {name: getattr(job, name) for name in Job.__slots__}
    changed = Job(**{**fields, **changes})
    book.put(changed)
    return changed


def test_jobs_are_on_disk_before_they_are_seen(tmp_path: Path) -> None:
    book = JobBook(tmp_path, "boot", lambda: 5.0)
    before = book.jobs
    job = book.open(job_request("db", pid=7), 1000)
    assert (job.id, job.uid, job.created, job.state) == (1, 1000, 5.0, JobState.QUEUED)
    assert dict(before) == {}
    assert book.jobs == JobBook(tmp_path, "boot").jobs == {1: job}
    done = put(book, job, state=JobState.DONE, ended=6.0)
    assert JobBook(tmp_path, "boot").get(1) == book.get(1) == done
    assert book.get(2) is None


def test_ids_are_not_used_again(tmp_path: Path) -> None:
    book = JobBook(tmp_path, "boot")
    for number in range(1, KEPT + 12):
        assert put(book, book.open(job_request(), 0), state=JobState.DONE).id == number
    assert sorted(book.jobs) == list(range(12, KEPT + 12))
    assert JobBook(tmp_path, "boot").open(job_request(), 0).id == KEPT + 12
    assert JobBook(tmp_path, "next boot").open(job_request(), 0).id == KEPT + 13


def test_the_last_fifty_that_are_over_are_kept_and_all_others(tmp_path: Path) -> None:
    book = JobBook(tmp_path, "boot")
    running = [book.open(job_request(), 0) for _ in range(3)]
    for _ in range(KEPT + 7):
        put(book, book.open(job_request(), 0), state=JobState.CANCELLED)
    assert len(book.jobs) == KEPT + 3
    assert sorted(book.jobs)[:4] == [1, 2, 3, 11]
    put(book, running[0], state=JobState.FAILED)
    assert 1 not in book.jobs
    assert [record.job.id for record in book.resumable()] == [2, 3]


def test_another_boot_interrupts_what_was_not_over(tmp_path: Path) -> None:
    book = JobBook(tmp_path, "boot")
    done = put(book, book.open(job_request(), 0), state=JobState.DONE, ended=3.0)
    paused = put(book, book.open(job_request("db"), 0), state=JobState.PAUSED, started=2.0)
    waits = book.open(job_request(), 0)
    later = JobBook(tmp_path, "next boot", lambda: 9.0)
    assert later.get(done.id) == done
    for job in (paused, waits):
        found = later.get(job.id)
        assert found is not None
        assert (found.state, found.ended) == (JobState.INTERRUPTED, 9.0)
        assert found.error is not None
        assert found.error.code == JobInterrupted.code
        assert (found.request, found.started) == (job.request, job.started)
    assert later.resumable() == ()
    assert [record.job.id for record in book.resumable()] == [2, 3]


def test_a_cancelled_job_stays_cancelled_until_it_is_over(tmp_path: Path) -> None:
    book = JobBook(tmp_path, "boot")
    job = book.open(job_request(), 0)
    book.put(job, cancelling=True)
    (record,) = JobBook(tmp_path, "boot").resumable()
    assert record.cancelling


def test_a_job_that_cannot_be_saved_is_not_there(tmp_path: Path) -> None:
    book = JobBook(tmp_path, "boot")
    (tmp_path / "jobs.json.new").mkdir()
    with pytest.raises(MachineError, match=r"cannot save .*jobs\.json"):
        book.open(job_request(), 0)
    assert book.jobs == {}


def saved(**changes: Any) -> str:
    job = Job(
        id=3,
        request=job_request("db", pid=7),
        uid=0,
        created=1.0,
        progress=Progress(outcomes={Outcome.MOVED: 5}),
        error=JobError(code="machine", message="no"),
    )
    record = record_to_json(Record(job=job)) | changes.pop("record", {})
    record["progress"] |= changes.pop("progress", {})
    return json.dumps({"version": 1, "boot_id": "boot", "next": 4, "jobs": [record]} | changes)


def test_an_undamaged_book_is_read(tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text(saved())
    assert list(JobBook(tmp_path, "boot").jobs) == [3]
    (tmp_path / "jobs.json").write_text(saved(next=1))
    assert JobBook(tmp_path, "boot").open(job_request(), 0).id == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        "[" * 100_000,
        saved(version=2),
        saved(version=None),
        saved(next="many"),
        saved(next=None),
        saved(jobs=5),
        saved(jobs=[5]),
        saved(jobs=[{}]),
        saved(record={"id": "x"}),
        saved(record={"id": float("inf")}),
        saved(record={"kind": "dance"}),
        saved(record={"what": 5}),
        saved(record={"zones": 5}),
        saved(record={"zones": [5]}),
        saved(record={"parameters": 5}),
        saved(record={"state": "asleep"}),
        saved(record={"created": None}),
        saved(record={"started": "soon"}),
        saved(record={"error": "no"}),
        saved(record={"error": ["machine", "no", 5]}),
        saved(progress={"outcomes": {"eaten": 5}}),
        saved(progress={"outcomes": [5]}),
        saved(progress={"notes": [5]}),
        saved(progress={"foreign": "some"}),
    ],
)
def test_a_damaged_book_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(text)
    with pytest.raises(StateDamaged, match="cannot read") as error:
        JobBook(tmp_path, "boot")
    assert error.value.message.count(str(path)) == 1
    assert error.value.hint
    assert path.read_text() == text
