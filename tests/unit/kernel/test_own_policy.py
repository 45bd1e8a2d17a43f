# SPDX-License-Identifier: Apache-2.0
"""Where this process's memory comes from, with the kernel's real policies, in threads of their own.

A thread's policy ends with the thread, so nothing is left of it in the other tests.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest

from zoned.kernel import own_policy
from zoned.kernel.own_policy import OwnMemory
from zoned.kernel.process import pages_by_node
from zoned.kernel.root import Root
from zoned.kernel.syscalls import MPOL_BIND, MPOL_DEFAULT, MPOL_F_STATIC_NODES, set_mempolicy

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
BIND = MPOL_BIND | MPOL_F_STATIC_NODES


def in_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def policy() -> str:
    """Return the policy of this thread, as the kernel shows it for its memory."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[0] = 1
        path = f"/proc/self/task/{threading.get_native_id()}/numa_maps"
        with open(path) as lines:  # noqa: PTH123 - a file of the kernel's own, not of a Root
            words = {line.split()[1] for line in lines}
    return next((word for word in words if word.startswith("bind")), "default")


@pytest.fixture
def here() -> int:
    """The node that this process has pages on."""

    def look() -> int:
        node = max(pages_by_node(Root(), os.getpid()) or {0: 1})
        set_mempolicy(BIND, {node})
        assert policy() != "default", "numa_maps does not tell policies"
        return node

    try:
        return in_thread(look)
    except (OSError, AssertionError) as error:
        pytest.skip(f"this kernel or container has no memory policies: {error}")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, frozenset[int]]]:
    """What the kernel is told, which it is not."""
    calls: list[tuple[int, frozenset[int]]] = []
    monkeypatch.setattr(
        own_policy,
        "set_mempolicy",
        lambda mode, nodes: calls.append((mode, frozenset(nodes))),
    )
    monkeypatch.setattr(own_policy, "move_all_pages", lambda *_: 0)
    return calls


def test_each_thread_follows(here: int) -> None:
    own = OwnMemory(Root())
    told, go = threading.Event(), threading.Event()
    found: list[str] = []

    def bystander() -> None:
        found.append(policy())
        told.set()
        assert go.wait(20)
        found.append(policy())
        own.follow()
        found.append(policy())

    def keeper() -> str:
        own.keep_to(frozenset({here}))
        return policy()

    thread = threading.Thread(target=bystander)
    thread.start()
    assert told.wait(20)
    kept = in_thread(keeper)
    go.set()
    thread.join()

    assert kept == f"bind=static:{here}"
    assert found == ["default", "default", kept]


def test_lifted_where_it_was_inherited(here: int) -> None:
    own, inherited, lifted = OwnMemory(Root()), threading.Event(), threading.Event()
    found: list[str] = []

    def child() -> None:
        found.append(policy())
        inherited.set()
        assert lifted.wait(20)
        own.follow()
        found.append(policy())

    def work() -> None:
        own.keep_to(frozenset({here}))
        thread = threading.Thread(target=child)
        thread.start()
        assert inherited.wait(20)
        own.keep_to(frozenset())
        found.append(policy())
        lifted.set()
        thread.join()

    in_thread(work)
    assert found == [f"bind=static:{here}", "default", "default"]


def test_a_node_that_is_not_there_is_refused() -> None:
    def work() -> int | None:
        try:
            set_mempolicy(BIND, {900})
        except OSError as error:
            return error.errno
        return None

    assert in_thread(work) in {errno.EINVAL, errno.ENOSYS, errno.EPERM}


def test_nobody_is_told_without_need(calls: list[tuple[int, frozenset[int]]]) -> None:
    own, some = OwnMemory(Root()), frozenset({0, 1})
    own.follow()
    own.keep_to(frozenset())
    assert calls == []

    for _ in range(2):
        own.keep_to(some)
        own.follow()
    assert calls == [(BIND, some)]

    own.keep_to(frozenset())
    own.follow()
    assert calls[1:] == [(MPOL_DEFAULT, frozenset())]


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, frozenset[int]]]) -> list[object]:
    """What is asked to move; nothing does."""
    moves: list[object] = []

    def move(_: Root, *about: object) -> int:
        assert calls, "first the policy, then the pages"
        moves.append(about)
        return 3

    monkeypatch.setattr(own_policy, "move_all_pages", move)
    return moves


def test_what_it_has_moves_along(moves: list[object], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    own = OwnMemory(Root())
    own.keep_to(frozenset({1}))
    assert moves == [(os.getpid(), frozenset({1}))]
    # What a thread took elsewhere before it was told moves at the next look.
    own.keep_to(frozenset({1}))
    own.keep_to(frozenset())
    assert len(moves) == 2
    assert "3 pages of the daemon's own" in caplog.text


def test_a_kernel_that_refuses_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(own_policy, "set_mempolicy", refuse)
    own = OwnMemory(Root())
    own.keep_to(frozenset({0}))
    own.follow()
    assert len(caplog.messages) == 1
