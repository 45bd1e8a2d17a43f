# SPDX-License-Identifier: Apache-2.0
"""All that can move does, and each byte is accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.engine.migration.bench import HUGE, A, B
from tests.unit.engine.migration.fake_kernel import PAGE
from zoned.kernel.page_flags import KPF_HUGE, KPF_LOCKED, KPF_LRU
from zoned.model.dma.offer import Span
from zoned.model.migration import Outcome

if TYPE_CHECKING:
    from tests.unit.engine.migration.bench import Bench


@pytest.mark.parametrize("movers", [1, 2, 4])
def test_all_moves_and_is_accounted_for(bench: Bench, movers: int) -> None:
    bench.kernel.fill(A, 0, 300)
    bench.kernel.fill(A, 0, 3, size=HUGE, at=1 << 30)
    bench.kernel.fill(A, 1, 5, at=1 << 40)
    bench.kernel.fill(B, 2, 7, at=1 << 40)
    progress = bench.move(movers=movers)
    size = 307 * PAGE + 3 * HUGE
    assert progress.outcomes == {Outcome.MOVED: size, Outcome.THERE: 5 * PAGE}
    assert (progress.total, progress.done, progress.left_behind) == (size, size, 0)
    assert (progress.processes, progress.gone) == (2, 0)
    assert bench.kernel.bytes_on(A, 0) == bench.kernel.bytes_on(B, 2) == 0
    assert not progress.notes
    assert not bench.control.waits


def test_only_the_first_address_of_a_folio_is_passed(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 3, size=HUGE)
    bench.move()
    assert sum(pages for _, pages, _ in bench.kernel.calls) == 3


def test_nothing_to_move_is_no_work(bench: Bench) -> None:
    bench.kernel.fill(A, 1, 5)
    assert bench.move().outcomes == {Outcome.THERE: 5 * PAGE}
    assert not bench.kernel.calls
    assert not bench.move().left_behind


def test_pages_of_other_sources_stay(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 5)
    bench.kernel.fill(A, 2, 6, at=1 << 30)
    progress = bench.move(sources=frozenset({0}))
    assert progress.outcomes == {Outcome.MOVED: 5 * PAGE}
    assert bench.kernel.bytes_on(A, 2) == 6 * PAGE


def test_memory_that_is_reserved_for_devices_stays(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 5)
    bench.kernel.fill(A, 0, 2, size=HUGE, at=1 << 30)
    mine = [page for page in bench.kernel.memory[A].values() if page.size == HUGE]
    fixed = tuple(Span(page.pfn * PAGE, HUGE) for page in mine)
    progress = bench.move(fixed=fixed)
    assert progress.outcomes == {Outcome.MOVED: 5 * PAGE}
    assert {page.node for page in mine} == {0}
    assert progress.notes == ("4MiB of memory that is reserved for devices stay where they are",)


def test_busy_pages_are_tried_again(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 9)
    for at, page in enumerate(bench.kernel.memory[A].values()):
        page.off_list, page.held = at % 3, at % 2
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: 9 * PAGE}
    assert progress.total == 9 * PAGE


def test_a_page_that_stays_busy_is_given_up_after_a_while(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 2)
    first = next(iter(bench.kernel.memory[A].values()))
    first.off_list, first.flags = 99, int(KPF_LRU | KPF_LOCKED)
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: PAGE, Outcome.BUSY: PAGE}
    assert progress.left_behind == PAGE
    assert bench.control.waits == [0.02, 0.1, 0.5, 2.0]


def test_a_page_that_somebody_holds_is_pinned(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 3)
    bench.kernel.fill(A, 0, 1, size=HUGE, at=1 << 30)
    bench.kernel.memory[A][1 << 20].held = -1
    bench.kernel.memory[A][1 << 30].held = -1
    # hugetlb pages are on no list from which reclaim takes pages.
    bench.kernel.memory[A][1 << 40] = bench.kernel.page(0, held=-1, flags=int(KPF_HUGE))
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: 2 * PAGE, Outcome.PINNED: 2 * PAGE + HUGE}


def test_many_that_stay_do_not_keep_others_from_moving(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 60)
    for at, page in enumerate(bench.kernel.memory[A].values()):
        page.held, page.off_list = -(at % 3 == 0), 99 * (at % 3 == 1)
    progress = bench.move()
    assert progress.outcomes[Outcome.MOVED] == 20 * PAGE
    assert progress.left_behind == 40 * PAGE


def test_a_full_node_is_not_tried_for_long(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 9)
    bench.kernel.full = {1}
    progress = bench.move()
    assert progress.outcomes == {Outcome.NO_MEMORY: 9 * PAGE}
    assert bench.control.waits == [0.02]


def test_a_node_that_turns_out_full_after_many_tries(bench: Bench) -> None:
    """The first tries say that the page is in use, the last that there is no room."""
    bench.kernel.fill(A, 0, 1)
    bench.kernel.memory[A][1 << 20].off_list = 3
    bench.kernel.full = {1}
    assert bench.move().outcomes == {Outcome.NO_MEMORY: PAGE}
    assert bench.control.waits == [0.02, 0.1, 0.5]


def test_one_full_node_does_not_keep_pages_from_another(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 4096)
    bench.kernel.full = {1}
    progress = bench.move(targets={1: 1, 2: 1})
    assert bench.kernel.bytes_on(A, 2) == progress.outcomes[Outcome.MOVED] > 0
    assert progress.outcomes[Outcome.NO_MEMORY] == bench.kernel.bytes_on(A, 0)


def test_pages_that_vanish_are_absent(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 9)

    def unmap(_: int) -> None:
        bench.kernel.memory[A].pop(1 << 20, None)

    bench.kernel.before = unmap
    assert bench.move().outcomes == {Outcome.MOVED: 8 * PAGE, Outcome.ABSENT: PAGE}


def test_memory_of_a_device_is_absent_once(bench: Bench) -> None:
    """Each look sees it again on the wrong node, and the kernel says each time that it is none."""
    bench.kernel.fill(A, 0, 4)
    bench.kernel.memory[A][1 << 20].device = True
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: 3 * PAGE, Outcome.ABSENT: PAGE}
    assert not progress.left_behind
    assert not progress.notes


def test_a_process_that_ends_is_a_normal_end(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 200)
    bench.kernel.fill(B, 0, 3)

    def end(pid: int) -> None:
        if pid == A and len(bench.kernel.calls) == 2:
            bench.kernel.end(A)

    bench.kernel.before = end
    progress = bench.move()
    moved = 100 * PAGE + 3 * PAGE
    assert progress.outcomes == {Outcome.MOVED: moved, Outcome.GONE: 100 * PAGE}
    assert (progress.processes, progress.gone, progress.left_behind) == (1, 1, 0)
    assert [pid for pid, *_ in bench.kernel.calls].count(A) == 2


def test_what_a_process_had_that_ended_after_the_last_look_is_not_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.kernel.fill(A, 0, 3)
    bench.kernel.memory[A][1 << 20].held = -1
    looks = []

    def looked(size: int) -> None:
        looks.append(size)
        if len(looks) == 7:
            bench.kernel.end(A)

    monkeypatch.setattr(bench.control, "expect", looked)
    progress = bench.move()
    assert len(bench.control.waits) == 4
    assert progress.outcomes == {Outcome.MOVED: 2 * PAGE, Outcome.GONE: PAGE}


def test_what_another_still_has_did_not_go_with_a_process(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 100)
    bench.kernel.fill(B, 1, 1, at=1 << 40)
    bench.kernel.memory[B] |= bench.kernel.memory[A]
    bench.kernel.before = lambda pid: bench.kernel.end(A) if pid == A else None
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: 100 * PAGE, Outcome.THERE: PAGE}
    assert progress.gone == 1


def test_what_is_forked_meanwhile_is_moved_too(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 100)

    def fork(_: int) -> None:
        if B not in bench.kernel.memory:
            bench.kernel.fill(B, 0, 20)

    bench.kernel.before = fork
    progress = bench.move()
    assert bench.kernel.bytes_on(B, 0) == 0
    assert progress.outcomes == {Outcome.MOVED: 120 * PAGE}
    assert (progress.processes, progress.total) == (2, 120 * PAGE)


def test_a_program_that_goes_on_taking_memory_is_not_followed_for_ever(bench: Bench) -> None:
    bench.kernel.fill(A, 0, 1)

    def take(_: int) -> None:
        mine = bench.kernel.memory[A]
        mine[max(mine) + PAGE] = bench.kernel.page(0)

    bench.kernel.before = take
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: 12 * PAGE, Outcome.BUSY: PAGE}
    assert [note for note in progress.notes if "take new memory" in note]
    assert len(bench.kernel.calls) == 12


def test_the_last_pass_may_well_end_it(bench: Bench) -> None:
    """Nothing is said of new memory where nothing is left."""
    bench.kernel.fill(A, 0, 12)
    for at, page in enumerate(bench.kernel.memory[A].values()):
        page.off_list = at
    progress = bench.move()
    assert progress.outcomes == {Outcome.MOVED: 12 * PAGE}
    assert not progress.notes
