# SPDX-License-Identifier: Apache-2.0
"""Learning what a move costs, with memory of our own."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from zoned.engine.migration import calibrate as module
from zoned.engine.migration.batch import Result
from zoned.engine.migration.calibrate import calibrate
from zoned.engine.migration.costs import Costs
from zoned.errors import KernelRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def patch(monkeypatch: pytest.MonkeyPatch, move: Callable[..., Result]) -> list[int]:
    """Have another function move pages; return the target node of each call."""
    seen: list[int] = []

    def call(pid: int, addresses: Any, targets: Any, flags: int) -> Result:
        seen.append(int(targets[0]))
        return move(addresses, targets)

    monkeypatch.setattr(module, "move_batch", call)
    return seen


def moves(addresses: Any, targets: Any) -> Result:
    """Move all, at 2 GiB a second and 1 ms a call."""
    return Result(status=targets, seconds=0.001 + len(addresses) * 4096 / (2 << 30))


def test_it_learns_what_a_move_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, seen = Costs(), patch(monkeypatch, moves)
    calibrate(costs, {2, 3}, {0, 1, 2})
    assert seen == [0, 2, 2, 2]
    assert costs.batches.fit() == pytest.approx((0.001, 1 / (2 << 30)))
    calibrate(costs, {2, 3}, {0})
    assert len(seen) == 4


@pytest.mark.parametrize(("targets", "sources"), [({1}, {1}), ({1}, set()), (set(), {0})])
def test_where_nothing_moves_nothing_is_tried(
    monkeypatch: pytest.MonkeyPatch, targets: Collection[int], sources: Collection[int]
) -> None:
    costs, seen = Costs(), patch(monkeypatch, moves)
    calibrate(costs, targets, sources)
    assert not seen
    assert not costs.batches.known


def test_what_did_not_move_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs()
    patch(monkeypatch, lambda _, targets: Result(status=targets * 0 - errno.ENOMEM, seconds=1.0))
    calibrate(costs, {1}, {0})
    assert not costs.batches.known


def test_nodes_that_it_may_not_use_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Result:
        raise KernelRefused("not allowed")

    costs = Costs()
    seen = patch(monkeypatch, refuse)
    calibrate(costs, {1}, {0})
    assert len(seen) == 1
    assert not costs.batches.known


def test_nodes_that_there_are_not_are_no_error() -> None:
    """Asked of the real kernel."""
    costs = Costs()
    calibrate(costs, {1021}, {1020, 1021})
    assert not costs.batches.known
