# SPDX-License-Identifier: Apache-2.0
"""The threads: one that changes the machine, others that look, and jobs that wait for the one."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from zoned.daemon.worker import Worker
from zoned.engine.jobs.control import Suspended

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 20.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.stop()


def test_changes_run_one_after_the_other_and_looks_beside_them(worker: Worker) -> None:
    begun, go = threading.Event(), threading.Event()
    order: list[str] = []

    def long_change() -> str:
        begun.set()
        assert go.wait(20)
        order.append("first")
        return threading.current_thread().name

    def next_change() -> str:
        order.append("second")
        return threading.current_thread().name

    async def both() -> None:
        first = asyncio.create_task(worker.change(long_change))
        second = asyncio.create_task(worker.change(next_change))
        assert await worker.look(begun.wait)
        assert await worker.look(lambda: "seen") == "seen"
        assert order == []
        go.set()
        assert await first == await second != threading.current_thread().name
        assert order == ["first", "second"]

    asyncio.run(both())


def test_a_caller_that_goes_away_does_not_stop_a_change(worker: Worker) -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def change() -> None:
        begun.set()
        assert go.wait(20)
        done.set()

    async def leave() -> None:
        call = asyncio.create_task(worker.change(change))
        await worker.look(begun.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go.set()
        assert await worker.look(lambda: done.wait(20))

    asyncio.run(leave())


def test_a_job_waits_for_its_turn_and_gets_what_came_of_it(worker: Worker) -> None:
    names: set[str] = set()

    def change() -> int:
        names.add(threading.current_thread().name)
        return 5

    assert worker.change_and_wait(change) == 5
    asyncio.run(worker.change(change))
    assert len(names) == 1
    with pytest.raises(ZeroDivisionError):
        worker.change_and_wait(lambda: 1 // 0)


def test_a_job_whose_turn_never_comes_is_suspended(worker: Worker) -> None:
    begun, go = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def busy() -> None:
        begun.set()
        assert go.wait(LIMIT)

    def wait_in_vain() -> None:
        try:
            worker.change_and_wait(lambda: pytest.fail("the daemon was over"))
        except Suspended as error:
            raised.append(error)

    first = threading.Thread(target=lambda: worker.change_and_wait(busy))
    first.start()
    assert begun.wait(LIMIT)
    waiting = threading.Thread(target=wait_in_vain)
    waiting.start()
    while not worker._writer._work_queue.qsize():
        waiting.join(0.001)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    waiting.join(LIMIT)
    assert len(raised) == 1
    go.set()
    for thread in (first, stopping):
        thread.join(LIMIT)
    with pytest.raises(Suspended):
        worker.change_and_wait(lambda: None)


def test_each_thread_prepares_itself(worker: Worker) -> None:
    prepared: list[str] = []
    worker.prepare = lambda: prepared.append(threading.current_thread().name)

    async def look() -> str:
        return await worker.look(lambda: threading.current_thread().name)

    assert [asyncio.run(look())] == prepared
    prepared.clear()
    order: list[list[str]] = []
    job = threading.Thread(
        target=lambda: worker.change_and_wait(lambda: order.append(list(prepared))), name="job"
    )
    job.start()
    job.join()
    # Before the change, and after it, which may be what there is to prepare for.
    assert (order, prepared) == ([["job"]], ["job", "job"])
