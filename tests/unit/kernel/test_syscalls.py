# SPDX-License-Identifier: Apache-2.0
"""The system calls, made for real on pages of this process."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import subprocess
from array import array
from typing import TYPE_CHECKING

import pytest

from zoned.kernel import syscalls
from zoned.kernel.process import pages_by_node
from zoned.kernel.root import Root
from zoned.kernel.syscalls import (
    MPOL_MF_MOVE,
    MPOL_MF_MOVE_ALL,
    NOT_TRIED,
    migrate_pages,
    move_pages_raw,
    pidfd_open,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = mmap.PAGESIZE
NO_NODE = 900


def move_pages(pid: int, addresses: list[int], nodes: list[int] | None) -> list[int]:
    """Make the call and return the statuses."""
    status = array("i", bytes(4 * len(addresses)))
    target = None if nodes is None else array("i", nodes)
    move_pages_raw(pid, array("Q", addresses), target, status)
    return status.tolist()


@pytest.fixture
def pages() -> Iterator[list[int]]:
    """Addresses of five pages of this process, of which the last was never touched."""
    memory = mmap.mmap(-1, 5 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = ctypes.c_char.from_buffer(memory)
    start = ctypes.addressof(view)
    for number in range(4):
        memory[number * PAGE] = 1
    try:
        move_pages(os.getpid(), [start], None)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:
            pytest.skip(f"this kernel or container has no move_pages: {error}")
        raise
    yield [start + number * PAGE for number in range(5)]
    del view
    memory.close()


def test_where_pages_are(pages: list[int]) -> None:
    found = move_pages(os.getpid(), pages, None)
    nodes = pages_by_node(Root(), os.getpid())
    assert set(found[:4]) <= set(nodes)
    assert found[4] in {-errno.ENOENT, -errno.EFAULT}


def test_pages_that_are_there_already(pages: list[int]) -> None:
    here = move_pages(0, pages[:4], None)
    assert move_pages(0, pages[:4], here) == here


def test_a_page_that_is_not_mapped(pages: list[int]) -> None:
    (status,) = move_pages(0, [PAGE], None)
    assert status in {-errno.EFAULT, -errno.ENOENT}


def test_statuses_are_one_for_each_page(pages: list[int]) -> None:
    many = pages[:4] * 700
    assert len(move_pages(0, many, None)) == 2800
    assert move_pages(0, [], None) == []


def test_a_status_the_kernel_left_alone_is_no_errno(
    pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_call", lambda *_: 0)
    assert move_pages(0, pages, None) == [NOT_TRIED] * 5
    assert NOT_TRIED < -4095  # MAX_ERRNO, include/linux/err.h


def test_a_node_that_does_not_exist(pages: list[int]) -> None:
    with pytest.raises(OSError, match="move_pages") as caught:
        move_pages(0, pages[:1], [NO_NODE])
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize(
    ("nodes", "status"),
    [
        (array("i", [0]), array("i", [0, 0])),
        (None, array("i", [0])),
        (None, array("i", [0, 0, 0])),
        (None, memoryview(array("i", [0, 0, 0, 0]))[::2]),
    ],
)
def test_pages_nodes_and_statuses_go_together(
    nodes: array[int] | None, status: array[int] | memoryview
) -> None:
    with pytest.raises(ValueError, match="differ in number"):
        move_pages_raw(0, array("Q", [0, PAGE]), nodes, status)


def test_buffers_are_handed_to_the_kernel_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def call(*given: object) -> int:
        calls.append(given)
        return 3

    monkeypatch.setattr(syscalls, "_call", call)
    addresses, nodes, status = array("Q", [PAGE, 0]), array("i", [1, 2]), array("i", [7, 7])
    assert move_pages_raw(12, addresses, nodes, status) == 3
    assert move_pages_raw(12, addresses, None, status, MPOL_MF_MOVE_ALL) == 3
    places = [buffer.buffer_info()[0] for buffer in (addresses, nodes, status)]
    assert [given[2:] for given in calls] == [
        (12, 2, *places, MPOL_MF_MOVE),
        (12, 2, places[0], 0, places[2], MPOL_MF_MOVE_ALL),
    ]
    assert addresses.tolist() == [PAGE, 0]
    assert nodes.tolist() == [1, 2]


def test_buffers_have_to_be_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_call", lambda *_: 0)
    status = array("i", [0])
    assert move_pages_raw(0, bytearray(8), bytearray(4), status) == 0
    for addresses, nodes, result in (
        (bytes(8), None, status),
        (bytearray(8), bytes(4), status),
        (bytearray(8), None, bytes(4)),
    ):
        with pytest.raises(TypeError):
            move_pages_raw(0, addresses, nodes, result)


def _node_of_this_process() -> int:
    return min(pages_by_node(Root(), os.getpid()))


def test_migrating_to_where_the_pages_are(pages: list[int]) -> None:
    node = _node_of_this_process()
    assert migrate_pages(0, {node}, {node}) == 0


def test_migrating_to_no_node(pages: list[int]) -> None:
    with pytest.raises(OSError, match="migrate_pages") as caught:
        migrate_pages(0, {0}, set())
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("node", [63, 64, 130])
def test_migrating_to_a_node_that_does_not_exist(pages: list[int], node: int) -> None:
    with pytest.raises(OSError, match="migrate_pages") as caught:
        migrate_pages(0, {0}, {node})
    assert caught.value.errno == errno.EINVAL


def test_nobody(pages: list[int]) -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    for call in (
        lambda: migrate_pages(child.pid, {0}, {0}),
        lambda: move_pages(child.pid, pages, None),
        lambda: pidfd_open(child.pid),
    ):
        with pytest.raises(ProcessLookupError):
            call()


def test_masks_have_a_bit_for_each_node() -> None:
    assert list(syscalls._mask({0, 3}, 3)) == [0b1001]
    assert list(syscalls._mask({64, 130}, 130)) == [0, 1, 4]
    assert list(syscalls._mask(set(), 63)) == [0]


def test_the_kernel_is_told_one_bit_more_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # get_nodes() in mm/mempolicy.c takes one off.
    calls: list[tuple[object, ...]] = []

    def call(*given: object) -> int:
        calls.append(given)
        return 7

    monkeypatch.setattr(syscalls, "_call", call)
    assert migrate_pages(12, {0}, {63}) == migrate_pages(12, {64}, {0}) == 7
    assert [(name, pid, bits) for name, _, pid, bits, *_ in calls] == [
        ("migrate_pages", 12, 65),
        ("migrate_pages", 12, 129),
    ]


def test_an_unknown_architecture_is_enosys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_NR_MIGRATE_PAGES", -1)
    with pytest.raises(OSError, match="migrate_pages") as caught:
        migrate_pages(0, {0}, {0})
    assert caught.value.errno == errno.ENOSYS


def test_a_pidfd_tells_the_end() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        descriptor = pidfd_open(child.pid)
        try:
            assert select.select([descriptor], [], [], 0)[0] == []
            assert child.stdin is not None
            child.stdin.close()
            assert select.select([descriptor], [], [], 30)[0] == [descriptor]
            assert not os.get_inheritable(descriptor)
        finally:
            os.close(descriptor)
