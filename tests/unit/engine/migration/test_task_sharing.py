# SPDX-License-Identifier: Apache-2.0
"""Pages that several map, processes that are moved by one call, and moves that are cut short."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.engine.migration.bench import A, B, Bench, connect
from tests.unit.engine.migration.fake_kernel import PAGE, Page
from tests.unit.fakes import make_world
from zoned.engine.jobs.control import Cancelled, JobControl, Suspended
from zoned.engine.migration import batch, mover, sight
from zoned.engine.migration.task import survey
from zoned.errors import NoRoom
from zoned.kernel.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
from zoned.model.migration import Outcome, Sharing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def share(bench: Bench) -> None:
    """A and B map 10 pages together, with strangers 20, of which 5 are of a program."""
    bench.kernel.fill(A, 0, 35)
    pages = sorted(bench.kernel.memory[A])
    for address in pages[:10]:
        bench.kernel.memory.setdefault(B, {})[address + (1 << 30)] = bench.kernel.memory[A][address]
    for address in pages[10:30]:
        bench.kernel.memory[A][address].others = 1
    bench.kernel.programs = set(pages[25:30])


@pytest.mark.parametrize(
    ("sharing", "stays"), [(Sharing.JOB, 20), (Sharing.MEMORY, 5), (Sharing.ALL, 0)]
)
@pytest.mark.parametrize("keep", [5, 1000])
def test_shared_pages(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, sharing: Sharing, stays: int, keep: int
) -> None:
    """Each counts once, whoever maps it; also where they are too many to remember."""
    monkeypatch.setattr(sight, "KEEP", keep)
    bench.kernel.group = 3
    bench.machine.costs.whole.learn(PAGE, 9.0)
    share(bench)
    found = survey(bench.machine, bench.plan(sharing=sharing))
    assert (found.to_move, sum(found.stays.values())) == ((35 - stays) * PAGE, stays * PAGE)
    progress = bench.move(sharing=sharing)
    left = {Outcome.SHARED: stays * PAGE} if stays else {}
    assert progress.outcomes == {Outcome.MOVED: (35 - stays) * PAGE} | left
    assert bench.has_moved() == (35 - stays) * PAGE
    assert progress.total == 35 * PAGE
    assert {flags for *_, flags in bench.kernel.calls} == {MPOL_MF_MOVE, MPOL_MF_MOVE_ALL}
    assert not bench.control.waits


def test_small_processes_are_moved_by_one_call(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 20)
    bench.kernel.fill(B, 0, 2000)
    bench.kernel.memory[A][1 << 20].held = 1
    progress = bench.move(sharing=Sharing.ALL)
    assert bench.kernel.whole[0] == (A, frozenset({0}), frozenset({1}))
    assert progress.outcomes == {Outcome.MOVED: 2020 * PAGE}
    assert not bench.kernel.bytes_on(A, 0)


@pytest.mark.parametrize(
    "how",
    [{"sharing": Sharing.JOB}, {"sharing": Sharing.ALL, "targets": {1: 1, 2: 1}}],
)
def test_one_call_is_never_made_where_it_would_do_something_else(
    bench: Bench, how: dict[str, Any]
) -> None:
    bench.kernel.fill(A, 0, 20)
    bench.move(**how)
    assert not bench.kernel.whole
    assert not bench.kernel.bytes_on(A, 0)


def test_a_process_that_ends_during_the_one_call(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 20)
    real = bench.kernel.migrate_pages

    def end(pid: int, *nodes: Any) -> int:
        bench.kernel.end(pid)
        return real(pid, *nodes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mover, "migrate_pages", end)
        progress = bench.move(sharing=Sharing.ALL)
    assert progress.outcomes == {Outcome.GONE: 20 * PAGE}
    assert progress.gone == 1


@pytest.mark.parametrize("stop", [JobControl.cancel, JobControl.suspend])
@pytest.mark.parametrize("movers", [1, 3])
def test_what_moved_before_the_end_is_accounted_for(
    bench: Bench, stop: Callable[[JobControl], None], movers: int
) -> None:
    bench.kernel.fill(A, 0, 2_000)

    def soon(_: int) -> None:
        if len(bench.kernel.calls) == 7:
            stop(bench.control)

    bench.kernel.before = soon
    with pytest.raises((Cancelled, Suspended)):
        bench.move(movers=movers)
    assert bench.control.progress.outcomes == {Outcome.MOVED: bench.has_moved()}
    assert 0 < bench.has_moved() < 2_000 * PAGE
    assert bench.kernel.bytes_on(A, 0) + bench.has_moved() == 2_000 * PAGE


def test_what_does_not_fit_is_refused_before_a_page_moves(bench: Bench) -> None:
    share(bench)
    asked: list[int] = []

    def check(size: int, huge: int) -> None:
        asked.append(size - huge)
        raise NoRoom("no")

    with pytest.raises(NoRoom):
        bench.move(check=check)
    # First by what is seen at once, then by what would really move.
    assert asked == [35 * PAGE, 15 * PAGE]
    assert not bench.kernel.calls


def test_where_all_is_there_room_is_not_asked_for(bench: Bench) -> None:
    def check(_: int, huge: int) -> None:
        raise AssertionError(f"asked for {huge}")

    bench.kernel.fill(A, 1, 5)
    bench.move(check=check)


def test_a_rate_is_kept(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 100)
    progress = bench.move(rate=float(100 * PAGE))
    assert progress.outcomes == {Outcome.MOVED: 100 * PAGE}
    assert max(pages for _, pages, _ in bench.kernel.calls) == 10
    # All but the first of ten batches wait, the last nearly until the second is over.
    assert len(bench.control.waits) == 9
    assert 0.5 < bench.control.waits[-1] <= 0.9


def test_a_second_move_of_the_same_job_adds_to_the_first(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 5)
    bench.kernel.fill(A, 1, 2, at=1 << 30)
    bench.move()
    bench.kernel.end(A)
    bench.kernel.fill(B, 0, 6)
    bench.kernel.fill(B, 1, 3, at=1 << 30)
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: 11 * PAGE, Outcome.THERE: 5 * PAGE}
    assert (progress.total, progress.processes) == (11 * PAGE, 2)


def test_the_longest_call_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.kernel.fill(A, 0, 200)
    seconds = itertools.chain([0.001, 0.5], itertools.repeat(0.002))

    def slow(pid: int, addresses: Any, targets: Any, flags: int) -> batch.Result:
        result = batch.move_batch(pid, addresses, targets, flags, bench.kernel.move_pages)
        return batch.Result(status=result.status, seconds=next(seconds), all_moved=result.all_moved)

    monkeypatch.setattr(mover, "move_batch", slow)
    assert bench.move().longest_call == 0.5


PAGES = st.builds(
    Page,
    node=st.integers(0, 2),
    size=st.sampled_from([PAGE, 4 * PAGE]),
    off_list=st.sampled_from([0, 0, 0, 1, 3, 99]),
    held=st.sampled_from([0, 0, 0, 1, -1]),
    device=st.sampled_from([False] * 9 + [True]),
    others=st.sampled_from([0, 0, 0, 1]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    memory=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 15)), max_size=40
    ),
    pages=st.lists(PAGES, min_size=16, max_size=16),
    sharing=st.sampled_from(Sharing),
    movers=st.integers(1, 3),
    full=st.sampled_from([set[int](), set[int](), {1}]),
)
def test_every_byte_has_one_outcome(
    tmp_path: Path,
    memory: list[tuple[int, int, int]],
    pages: list[Page],
    sharing: Sharing,
    movers: int,
    full: set[int],
) -> None:
    """Whatever processes map, and whatever is in the way."""
    bench = Bench(make_world(tmp_path).machine())
    for number, page in enumerate(pages):
        page.pfn = 10**6 * (number + 1)
    for pid, at, number in memory:
        bench.kernel.memory.setdefault(A + pid, {})[(at + 1) << 20] = pages[number]
    mapped = {id(page): page for each in bench.kernel.memory.values() for page in each.values()}
    before = {key: page.node for key, page in mapped.items()}
    bench.kernel.full = full
    with pytest.MonkeyPatch.context() as patch:
        connect(bench, patch)
        progress = bench.move(sharing=sharing, movers=movers)
    found = Counter(progress.outcomes)
    wrong = [key for key, node in before.items() if node != 1]
    assert sum(found.values()) == sum(page.size for page in mapped.values())
    assert found[Outcome.MOVED] == sum(mapped[key].size for key in wrong if mapped[key].node == 1)
    assert found[Outcome.ABSENT] == sum(mapped[key].size for key in wrong if mapped[key].device)
    left = sum(page.size for page in mapped.values() if page.node != 1 and not page.device)
    assert progress.left_behind == left
    free = [page for page in mapped.values() if not (page.held or page.off_list or page.device)]
    if sharing is Sharing.ALL and not full:
        assert {page.node for page in free} <= {1}
    assert bool(full) <= (Outcome.MOVED not in found)
