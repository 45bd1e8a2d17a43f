# SPDX-License-Identifier: Apache-2.0
"""Huge pages that lie where a device can reach: held, handed over, and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_huge import HUGE, FakeFile, FakeHuge
from tests.unit.fake_sys import NODES, write
from zoned.errors import KernelRefused, MachineError, Unsupported
from zoned.kernel import hugetlb
from zoned.kernel.hugetlb import NodePool, read_pool, set_pool
from zoned.kernel.root import sysroot
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.hugetlb import HugePool

LIMIT = 16 * HUGE
POOL = f"{NODES}/node0/hugepages/hugepages-2048kB"


def pages(*numbers: int) -> list[int]:
    return [number * HUGE for number in numbers]


def spans(*numbers: int) -> list[Span]:
    return [Span(at, HUGE) for at in pages(*numbers)]


@pytest.fixture
def huge(tmp_path: Path) -> FakeHuge:
    found = FakeHuge(tmp_path)
    found.add(pages(40, 3, 41, 1, 2, 42, 4))
    return found


def test_the_pool_of_a_node(tmp_path: Path) -> None:
    write(tmp_path, {f"{POOL}/nr_hugepages": "9", f"{POOL}/free_hugepages": "4"})
    root = sysroot(tmp_path)
    assert read_pool(root, 0, HUGE) == NodePool(total=9, free=4)
    write(tmp_path, {f"{POOL}/surplus_hugepages": "2"})
    found = read_pool(root, 0, HUGE)
    assert found is not None
    assert found.lasting == 7
    assert read_pool(root, 1, HUGE) is None
    assert read_pool(root, 0, 1 << 30) is None


def test_a_machine_without_nodes_has_one_pool(tmp_path: Path) -> None:
    path = "sys/kernel/mm/hugepages/hugepages-2048kB"
    write(tmp_path, {f"{path}/nr_hugepages": "9", f"{path}/free_hugepages": "4"})
    assert read_pool(sysroot(tmp_path), 0, HUGE) == NodePool(total=9, free=4)
    assert read_pool(sysroot(tmp_path), 1, HUGE) is None


def test_the_size_of_a_pool_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {f"{POOL}/nr_hugepages": "5", f"{POOL}/free_hugepages": "0"})

    def some_come(path: Path, text: str) -> None:
        assert text == "10"
        path.write_text("8\n")

    monkeypatch.setattr(hugetlb, "write_text", some_come)
    assert set_pool(sysroot(tmp_path), 0, HUGE, 10) == 8


def test_there_is_no_pool_to_set(tmp_path: Path) -> None:
    with pytest.raises(KernelRefused, match="nr_hugepages"):
        set_pool(sysroot(tmp_path), 0, HUGE, 10)


def test_a_pool_that_cannot_be_read_back(tmp_path: Path) -> None:
    write(tmp_path, {f"{POOL}/nr_hugepages": "5"})
    with pytest.raises(MachineError, match="back"):
        set_pool(sysroot(tmp_path), 0, HUGE, 10)


def hold(pool: HugePool, count: int) -> int:
    """Take so many pages below the limit; return how many came."""
    return len(pool.gather([Span(0, LIMIT)], count))


def test_pages_in_the_spans_are_kept_and_others_freed(huge: FakeHuge) -> None:
    with huge.pool() as pool:
        assert pool.page == HUGE
        assert hold(pool, 3) == 3
        assert [span.start for span in pool.spans] == pages(3, 1, 2)
        assert huge.free == pages(40, 41, 42, 4), "in another order than before"
        assert all(span.size == HUGE for span in pool.spans)
        assert hold(pool, 1) == 1
        assert hold(pool, 1) == 0
    assert sorted(huge.free) == pages(1, 2, 3, 4, 40, 41, 42)


def test_all_that_there_are(huge: FakeHuge) -> None:
    with huge.pool() as pool:
        assert set(pool.gather([Span(0, 3 * HUGE)])) == set(spans(1, 2))
        assert pool.gather([Span(0, 3 * HUGE)]) == ()


def test_the_search_for_low_pages_ends(huge: FakeHuge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugetlb, "_MISSES", 2)
    with huge.pool() as pool:
        assert hold(pool, 4) == 1


def test_pages_that_the_kernel_would_make_anew_are_not_taken(huge: FakeHuge) -> None:
    """Beyond the pool the kernel takes them from anywhere on the node (overcommit)."""
    huge.free.clear()
    huge.tell()
    huge.free = pages(5)  # not told by free_hugepages
    with huge.pool() as pool:
        assert hold(pool, 1) == 0


def test_many_pages_need_a_larger_file(tmp_path: Path) -> None:
    huge = FakeHuge(tmp_path)
    huge.add(pages(*range(1, 301)))
    with huge.pool() as pool:
        assert len(pool.gather([Span(0, 400 * HUGE)])) == 300
        assert [span.start for span in pool.spans] == pages(*range(1, 301))


def test_a_page_on_its_way_elsewhere_is_not_shown(huge: FakeHuge) -> None:
    with huge.pool() as pool:
        hold(pool, 3)
        (file,) = huge.files
        place = next(place for place, at in file.pages.items() if at == HUGE)
        file.moving.add(place)
        assert [span.start for span in pool.spans] == pages(3, 2)
        file.moving.clear()
        file.pages[place] = 50 * HUGE
        huge.used ^= {HUGE, 50 * HUGE}
        assert [span.start for span in pool.spans] == pages(3, 50, 2)
        huge.add([HUGE])
        pool.drop(spans(50))
        assert hold(pool, 1) == 1
        assert {span.start for span in pool.spans} == set(pages(1, 2, 3))


def test_pages_are_dropped(huge: FakeHuge) -> None:
    with huge.pool() as pool:
        hold(pool, 3)
        pool.drop([Span(HUGE, 2 * HUGE), Span(60 * HUGE, HUGE)])
        assert [span.start for span in pool.spans] == pages(3)
        assert huge.free[:2] in (pages(1, 2), pages(2, 1))


class TestLending:
    def test_the_pages_in_the_order_asked_for(self, huge: FakeHuge) -> None:
        with huge.pool() as pool:
            hold(pool, 4)
            huge.wiped.clear()
            file = huge.files[pool.lend([Span(2 * HUGE, 2 * HUGE), Span(HUGE, HUGE)])]
            assert file.pages == dict(enumerate(pages(2, 3, 1)))
            assert file.sealed
            assert not file.open, "its descriptor belongs to the caller, and nothing else is open"
            assert set(pages(1, 2, 3)) <= set(huge.wiped)
            assert [span.start for span in pool.spans] == pages(4)

    def test_lent_pages_outlive_the_pool_and_come_back(self, huge: FakeHuge) -> None:
        with huge.pool() as pool:
            hold(pool, 4)
            lent = huge.files[pool.lend(spans(2, 3))]
            assert pool.gather(spans(2, 3)) == ()
            lent.let_go()
            assert set(pool.gather(spans(1, 2, 3))) == set(spans(2, 3))
            assert {span.start for span in pool.spans} == set(pages(1, 2, 3, 4))
            again = huge.files[pool.lend(spans(2))]
        assert again.pages == {0: 2 * HUGE}

    @pytest.mark.parametrize("asked", [(), (2, 2), (2, 5), (40,)])
    def test_what_is_not_held_is_not_lent(self, huge: FakeHuge, asked: tuple[int, ...]) -> None:
        with huge.pool() as pool:
            hold(pool, 4)
            with pytest.raises(MachineError, match="does not hold"):
                pool.lend(spans(*asked))
            assert len(pool.spans) == 4

    def test_freed_pages_would_leave_an_overfull_pool(self, huge: FakeHuge) -> None:
        with huge.pool() as pool:
            hold(pool, 4)
            huge.surplus = 1
            huge.tell()
            with pytest.raises(MachineError, match="beyond its pool"):
                pool.lend(spans(1))
            assert len(pool.spans) == 4

    def test_a_page_freed_by_others_at_the_same_moment(self, huge: FakeHuge) -> None:
        with huge.pool() as pool:
            hold(pool, 4)
            others = pages(44, 45)

            def free_one(_: FakeFile) -> None:
                if others:
                    huge.free.insert(0, others.pop())

            huge.on_take = free_one
            file = huge.files[pool.lend(spans(2, 3))]
            assert file.pages == dict(enumerate(pages(2, 3)))
            assert {span.start for span in pool.spans} == set(pages(1, 4))
            assert set(pages(44, 45)) <= set(huge.free)

    def test_a_page_taken_by_others_at_the_same_moment(self, huge: FakeHuge) -> None:
        with huge.pool() as pool:
            hold(pool, 4)

            def take_it(_: FakeFile) -> None:
                if 3 * HUGE in huge.free:
                    huge.free.remove(3 * HUGE)
                    huge.used.add(3 * HUGE)

            huge.on_take = take_it
            with pytest.raises(MachineError, match="0x600000 went to somebody else"):
                pool.lend(spans(2, 3))
            assert {span.start for span in pool.spans} == set(pages(1, 2, 4))
            assert [file.pages for file in huge.files[1:]] == [{}]
            assert sorted(huge.free) == pages(40, 41, 42)

    def test_others_keep_freeing_pages(self, huge: FakeHuge) -> None:
        with huge.pool() as pool:
            hold(pool, 4)
            others = iter(pages(*range(44, 60)))

            def free_one(file: FakeFile) -> None:
                if file is not huge.files[0]:
                    huge.free.insert(0, next(others))

            huge.on_take = free_one
            with pytest.raises(MachineError, match="somebody else"):
                pool.lend(spans(2, 3))
            assert {span.start for span in pool.spans} == set(pages(1, 2, 3, 4))


def test_a_kernel_without_such_pages(tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        hugetlb.HugePool(sysroot(tmp_path), 0, 3 << 12)
