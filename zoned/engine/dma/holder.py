# SPDX-License-Identifier: Apache-2.0
"""What each rung of the ladder has to be able to do. One module for each rung lies beside this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zoned.engine.blocks.hands import Hands
    from zoned.engine.machine import Machine
    from zoned.model.dma.held import Held


class Holder(Protocol):
    """One rung. The methods run in a job's thread; what they change in the ledger or in the
    machine's values goes through `Hands.change`, and is in the ledger before it is done.
    """

    def hold(self, machine: Machine, hands: Hands, held: Held) -> Held:
        """Set the memory aside; return the reservation with what it got.

        It is in the ledger, not standing, already; with `devices` empty it waits for one. Verified
        by looking before this returns. Raises ZonedError where the rung does not hold, and then
        nothing is left of the attempt. Again, on one that stands, it repairs what is missing (a
        device that came or went, a restart).
        """

    def faults(self, machine: Machine, held: Held) -> list[str]:
        """Return what is not as it should be with one that stands, by looking; changes nothing."""

    def release(self, machine: Machine, hands: Hands, held: Held) -> None:
        """Give the memory back. What is not there any more is fine.

        Raises ZonedError where something cannot go back yet: it stays in the ledger then.
        """
