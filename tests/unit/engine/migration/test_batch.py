# SPDX-License-Identifier: Apache-2.0
"""Whatever the kernel answers, each page gets its true outcome."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest

from tests.unit.engine.migration.fake_kernel import PAGE, FakeKernel, Page
from zoned.engine.migration import look
from zoned.engine.migration.batch import Result, move_batch
from zoned.errors import KernelRefused
from zoned.kernel.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
from zoned.model.migration import Outcome

PID = 7


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    found = FakeKernel()
    monkeypatch.setattr(look, "move_pages_raw", found.move_pages)
    return found


def put(kernel: FakeKernel, *pages: Page) -> None:
    kernel.memory[PID] = {(at + 1) * PAGE: page for at, page in enumerate(pages)}


def move(
    kernel: FakeKernel, count: int, *, targets: list[int] | None = None, flags: int = MPOL_MF_MOVE
) -> list[str]:
    """Move the first pages; return the outcome of each."""
    addresses = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(PAGE)
    nodes = np.array(targets or [1] * count, np.int32)
    return outcomes(move_batch(PID, addresses, nodes, flags, kernel.move_pages), nodes)


def outcomes(result: Result, nodes: Any) -> list[str]:
    found = [""] * len(nodes)
    for mask, outcome in result.outcomes(nodes):
        for at in np.flatnonzero(mask).tolist():
            assert not found[at], "the masks overlap"
            found[at] = outcome.value
    assert all(found), "a page has no outcome"
    return found


def test_all_move_by_one_call(kernel: FakeKernel) -> None:
    put(kernel, *(kernel.page(0) for _ in range(9)))
    assert move(kernel, 9) == ["moved"] * 9
    assert kernel.calls == [(PID, 9, MPOL_MF_MOVE)]


def test_each_refusal_has_its_outcome(kernel: FakeKernel) -> None:
    put(
        kernel,
        kernel.page(0),
        kernel.page(0, others=1),
        kernel.page(0, device=True),
        kernel.page(1),
        kernel.page(0, off_list=9),
        kernel.page(0, held=-1),
        kernel.page(0),
    )
    assert move(kernel, 8) == [
        "moved",
        "shared",
        "absent",
        "moved",
        "busy",
        "busy",
        "moved",
        "absent",
    ]


def test_with_the_right_flag_shared_pages_move(kernel: FakeKernel) -> None:
    put(kernel, kernel.page(0, others=1))
    assert move(kernel, 1, flags=MPOL_MF_MOVE_ALL) == ["moved"]


def test_what_is_behind_a_page_that_does_not_move_is_tried_again(kernel: FakeKernel) -> None:
    put(kernel, kernel.page(0, held=-1), *(kernel.page(0) for _ in range(5)))
    assert move(kernel, 6, targets=[1, 1, 2, 2, 1, 1]) == ["busy"] + ["moved"] * 5


def test_pages_that_cannot_be_had_do_not_keep_others_from_moving(kernel: FakeKernel) -> None:
    """However many there are, taken or not, and in whatever order."""
    pages = []
    for _ in range(12):
        pages += [kernel.page(0, held=-1), kernel.page(0, off_list=99), kernel.page(0)]
    put(kernel, *pages)
    assert move(kernel, 36) == ["busy", "busy", "moved"] * 12


def test_a_page_that_is_held_for_a_moment_is_left_to_the_next_pass(kernel: FakeKernel) -> None:
    put(kernel, kernel.page(0, held=1), kernel.page(0))
    assert move(kernel, 2) == ["busy", "moved"]
    assert move(kernel, 2) == ["moved", "moved"]


def test_no_memory_on_one_node_says_nothing_of_others(kernel: FakeKernel) -> None:
    kernel.full = {1}
    put(kernel, *(kernel.page(0) for _ in range(6)))
    assert move(kernel, 6, targets=[1, 1, 2, 2, 1, 2]) == [
        "no-memory",
        "no-memory",
        "moved",
        "moved",
        "no-memory",
        "moved",
    ]
    assert len(kernel.calls) == 2


def test_no_memory_after_all_although_some_moved(kernel: FakeKernel) -> None:
    """The call fails with ENOMEM and tells nothing of those that moved before."""
    put(kernel, *(kernel.page(0) for _ in range(4)))

    def call(pid: int, addresses: Any, nodes: Any, status: Any, flags: int, /) -> int:
        for page in list(kernel.memory[PID].values())[:2]:
            page.node = 1
        status[:] = -4096
        raise OSError(errno.ENOMEM, "no memory")

    addresses = np.arange(1, 5, dtype=np.uint64) * np.uint64(PAGE)
    nodes = np.array([1] * 4, np.int32)
    result = move_batch(PID, addresses, nodes, MPOL_MF_MOVE, call)
    assert outcomes(result, nodes) == ["moved", "moved", "no-memory", "no-memory"]


def test_a_false_busy_of_a_page_that_is_there_is_seen_by_the_next_look(kernel: FakeKernel) -> None:
    """A page mapped twice: taken at its first address, it cannot be taken at its second."""
    page = kernel.page(0)
    put(kernel, page)

    def call(pid: int, addresses: Any, nodes: Any, status: Any, flags: int, /) -> int:
        page.node = 1
        status[:] = [1, -errno.EBUSY]
        return 0

    addresses, nodes = np.array([PAGE, PAGE], np.uint64), np.array([1, 1], np.int32)
    result = move_batch(PID, addresses, nodes, MPOL_MF_MOVE, call)
    assert outcomes(result, nodes) == ["moved", "busy"]
    assert look.where(PID, addresses).tolist() == [1, 1]


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL])
def test_a_process_that_ends_in_the_middle(kernel: FakeKernel, code: int) -> None:
    def call(pid: int, addresses: Any, nodes: Any, status: Any, flags: int, /) -> int:
        status[:] = [1, -4096, -errno.EBUSY]
        raise OSError(code, "gone")

    addresses, nodes = np.arange(3, dtype=np.uint64), np.array([1] * 3, np.int32)
    result = move_batch(PID, addresses, nodes, MPOL_MF_MOVE, call)
    assert result.ended
    assert outcomes(result, nodes) == ["moved", "gone", "gone"]


def test_a_process_that_ends_between_two_calls(kernel: FakeKernel) -> None:
    """What had been refused before is gone as well."""
    put(kernel, kernel.page(0, off_list=9), kernel.page(0, held=-1), kernel.page(0), kernel.page(0))

    def call(pid: int, addresses: Any, nodes: Any, status: Any, flags: int, /) -> int:
        if kernel.calls:
            raise OSError(errno.ESRCH, "gone")
        return kernel.move_pages(pid, addresses, nodes, status, flags)

    addresses = np.arange(1, 5, dtype=np.uint64) * np.uint64(PAGE)
    nodes = np.array([1, 1, 2, 2], np.int32)
    result = move_batch(PID, addresses, nodes, MPOL_MF_MOVE, call)
    assert outcomes(result, nodes) == ["gone"] * 4


def test_a_process_that_ends_before_it_is_asked_again(kernel: FakeKernel) -> None:
    put(kernel, kernel.page(0, held=-1), kernel.page(0))
    real = kernel.move_taken

    def taken(pages: list[Page], target: int) -> int:
        left = real(pages, target)
        kernel.end(PID)
        return left

    kernel.move_taken = taken  # type: ignore[method-assign]
    assert move(kernel, 2) == ["gone", "gone"]


@pytest.mark.parametrize(("code", "hint"), [(errno.EACCES, "cpuset"), (errno.EPERM, "")])
def test_what_the_kernel_refuses_at_all(kernel: FakeKernel, code: int, hint: str) -> None:
    def call(*_: object) -> int:
        raise OSError(code, "not allowed")

    addresses, nodes = np.arange(2, dtype=np.uint64), np.array([3, 1], np.int32)
    with pytest.raises(KernelRefused, match="process 7 to node 1, 3: not allowed") as error:
        move_batch(PID, addresses, nodes, MPOL_MF_MOVE, call)
    assert hint in error.value.hint
    assert bool(error.value.hint) is bool(hint)


def test_the_longest_call_is_told(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    put(kernel, kernel.page(0, held=-1), kernel.page(0), kernel.page(0))
    clock = iter([0.0, 5.0, 10.0, 13.0])
    monkeypatch.setattr("zoned.engine.migration.batch.time.monotonic", lambda: next(clock))
    addresses = np.arange(1, 4, dtype=np.uint64) * np.uint64(PAGE)
    nodes = np.array([1, 2, 1], np.int32)
    assert move_batch(PID, addresses, nodes, MPOL_MF_MOVE, kernel.move_pages).seconds == 5.0


def test_unknown_refusals_are_busy() -> None:
    nodes = np.array([1, 1, 1], np.int32)
    status = np.array([0, -errno.EIO, -4096], np.int32)
    assert outcomes(Result(status=status, seconds=0.0), nodes) == [Outcome.BUSY.value] * 3
