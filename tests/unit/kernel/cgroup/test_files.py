# SPDX-License-Identifier: Apache-2.0
"""Reading what a group shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zoned.errors import MachineError
from zoned.kernel.cgroup.files import (
    PAGE,
    read_by_node,
    read_by_node_v1,
    read_events,
    read_group,
    read_keyed,
    read_limits,
    read_pressure,
    read_size,
    round_size,
)
from zoned.model.zone import Events, Limits, Pressure

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_there_is_unknown_and_never_zero(tmp_path: Path) -> None:
    group = read_group(tmp_path, zone="db", path="/zone/db", pids=())

    assert group.limits == Limits()
    assert (group.used, group.anon, group.peak, group.swap_used) == (None, None, None, None)
    assert (group.events, group.pressure, group.effective_mems) == (Events(), None, None)
    assert group.by_node == {}


def test_a_group_is_read_whole(tmp_path: Path) -> None:
    for name, text in {
        "memory.max": "268435456",
        "memory.high": "max",
        "memory.min": "4096",
        "memory.swap.max": "0",
        "memory.current": "5000",
        "memory.peak": "6000",
        "memory.swap.current": "7",
        "memory.stat": "anon 4096\nfile 8192\n",
        "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
        "cpuset.mems": "2",
        "cpuset.mems.effective": "2",
        "cpuset.cpus": "",
        "cpuset.cpus.partition": "root invalid (Parent is not a partition root)",
    }.items():
        (tmp_path / name).write_text(text + "\n")

    group = read_group(tmp_path, zone="db", path="/zone/db", pids=(3, 4))

    assert group.limits == Limits(max=268435456, min=4096, swap=0, mems=frozenset({2}))
    assert (group.used, group.anon, group.peak, group.swap_used) == (5000, 4096, 6000, 7)
    assert group.events == Events(oom=3, oom_kill=4, max=2, high=1)
    assert group.effective_mems == frozenset({2})
    assert group.pids == (3, 4)


@pytest.mark.parametrize(
    ("state", "valid"), [("root", True), ("isolated", True), ("member", False)]
)
def test_only_a_valid_partition_has_cpus_for_itself(
    tmp_path: Path, state: str, *, valid: bool
) -> None:
    (tmp_path / "cpuset.cpus.partition").write_text(state + "\n")

    assert read_limits(tmp_path).exclusive_cpus is valid


def test_bytes_per_node_count_each_page_once(tmp_path: Path) -> None:
    path = tmp_path / "memory.numa_stat"
    path.write_text("anon N0=1 N2=10\nfile N0=100 N2=0\nshmem N0=50 N2=0\nkernel_stack N0=2 N2=3\n")

    assert read_by_node(path) == {0: 103, 2: 13}


def test_v1_counts_pages(tmp_path: Path) -> None:
    path = tmp_path / "memory.numa_stat"
    path.write_text("total=1 N0=1\nhierarchical_total=5 N0=2 N1=3\nhierarchical_anon=1 N0=1 N1=0\n")

    assert read_by_node_v1(path) == {0: 2 * PAGE, 1: 3 * PAGE}
    assert read_by_node_v1(tmp_path / "absent") == {}


def test_pressure(tmp_path: Path) -> None:
    path = tmp_path / "memory.pressure"
    path.write_text(
        "some avg10=1.50 avg60=0.25 avg300=0.00 total=9\n"
        "full avg10=1.00 avg60=0.10 avg300=0.00 total=8\n"
    )

    assert read_pressure(path) == Pressure(some_10s=1.5, some_60s=0.25, full_10s=1.0, full_60s=0.1)
    path.write_text("some avg10=1.50 avg60=0.25 avg300=0.00 total=9\n")
    assert read_pressure(path) is None


def test_odd_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "memory.stat"
    path.write_text("anon 1\nword\nfile x\nshmem 2 3\n")

    assert read_keyed(path) == {"anon": 1}
    assert read_events(path) == Events()


def test_a_limit_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "memory.max"
    path.write_text("much\n")

    with pytest.raises(MachineError, match=r"memory\.max.*much"):
        read_size(path)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, None),
        (0, 0),
        (PAGE - 1, 0),
        (PAGE + 1, PAGE),
        (1 << 63, None),
        ((1 << 63) - PAGE, None),
        ((1 << 63) - PAGE - 1, (1 << 63) - 2 * PAGE),
    ],
)
def test_sizes_are_rounded_as_the_kernel_rounds(size: int | None, shown: int | None) -> None:
    assert round_size(size) == shown
