# SPDX-License-Identifier: Apache-2.0
"""Reserving at boot, before drivers are loaded: no jobs, not for long, and the daemon goes on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from zoned.engine.blocks.hands import Direct
from zoned.engine.dma.reserve import reserve
from zoned.engine.dma.sight import look
from zoned.engine.dma.wanted import What, to_do, wanted
from zoned.engine.jobs.control import Cancelled
from zoned.errors import ZonedError
from zoned.kernel.pmem import read_idle_pmem
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoned.engine.blocks.hands import Hands
    from zoned.engine.dma.wanted import Wanted
    from zoned.engine.machine import Machine

_log = logging.getLogger(__name__)


class Limited(Direct):
    """Hands without a job that are to be done after a while."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def ends(self) -> bool:
        """See JobControl."""
        return self._clock() >= self._end

    def note(self, text: str) -> None:
        """See JobControl."""
        _log.info("%s", text)

    def checkpoint(self) -> None:
        """See JobControl. Raises Cancelled when the time is up."""
        if self.ends:
            raise Cancelled


def reserve_early(machine: Machine, hands: Hands) -> list[str]:
    """Reserve what is wanted and does not stand, the most important first; return what could not
    be, or is better left to the daemon, with the reason.

    What is not wanted any more is left to the daemon, too. Raises MachineError where the machine
    cannot be read.
    """
    left = []
    for name, what in to_do(look(machine), machine.ledger.touched.reservations).items():
        if what is not What.TAKE_DOWN:
            try:
                why = _attempt(machine, hands, name)
            except Cancelled:
                why = "there is no time left"
            except ZonedError as error:
                why = f"[{error.code}] {error}"
            if why:
                left.append(f"reservation {name}: {why}")
    return left


def _attempt(machine: Machine, hands: Hands, name: str) -> str:
    """Reserve one; return why not. Raises ZonedError, Cancelled."""
    hands.checkpoint()
    # What was reserved just now is not there any more.
    each = wanted(look(machine)).get(name)
    if each is None:
        return "it is not wanted any more"
    if _region_may_come(machine, each):
        return "persistent memory lies below its limit, and has no driver yet"
    reserve(machine, hands, each)
    return ""


def _region_may_come(machine: Machine, each: Wanted) -> bool:
    """Return whether a device-dax region may come to be that is better than all there is now.

    Nobody else takes what will be in it, so there is no hurry.
    """
    need = each.need
    if Rung.DEVDAX not in need.rungs:
        return False
    holds = any(step.holds for step in each.verdict.steps if step.rung is Rung.DEVDAX)
    below = (span.below(need.mask) for span in read_idle_pmem(machine.root))
    return not holds and any(size >= need.size for size in below)
