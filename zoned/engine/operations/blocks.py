# SPDX-License-Identifier: Apache-2.0
"""Memory blocks of zones and of the parked pool: what several operations do with them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from zoned.engine.blocks.back import give_back
from zoned.engine.blocks.observe import needs_of
from zoned.engine.blocks.strays import tidy_strays
from zoned.engine.jobs.control import Cancelled
from zoned.errors import ZonedError
from zoned.kernel.block_state import BlockSwitch
from zoned.model.block import zone_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.engine.operations.context import Context
    from zoned.model.block import HeldBlock


@contextlib.contextmanager
def release(context: Context, hands: Hands, zone: str) -> Iterator[None]:
    """Give a zone's surplus of blocks back where the block fails or is cancelled."""
    try:
        yield
    except (ZonedError, Cancelled):
        give_back_surplus(context, hands, zone)
        raise


def give_back_surplus(context: Context, hands: Hands, zone: str) -> None:
    """Give back the blocks that a zone holds and does not want (any more)."""
    machine = context.machine
    if not machine.ledger.touched.blocks:
        return
    owner = zone_owner(zone)
    give_back_all(
        machine, hands, lambda: [each for each in needs_of(machine).back if each.owner == owner]
    )


def give_back_all(
    machine: Machine, hands: Hands, choose: Callable[[], Sequence[HeldBlock]]
) -> list[HeldBlock]:
    """Give back what `choose` names, in turn with other work on blocks, so that nobody else has it
    in hand; return what could not be.
    """
    if not choose():
        return []
    with machine.turn.taken(hands), BlockSwitch(machine.root) as switch:
        left = give_back(machine, hands, choose(), switch)
        tidy_strays(machine, hands)
    return left
