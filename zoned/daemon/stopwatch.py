# SPDX-License-Identifier: Apache-2.0
"""How long it takes from a device's event until memory for it is reserved, or is back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zoned.kernel.udev import DeviceEvent
    from zoned.model.dma.held import Held

_log = logging.getLogger(__name__)

LONGEST = 600.0
"""Seconds after which an event is none the less forgotten: for most devices nothing is wanted."""

_COMES = frozenset({"add", "bind"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    event: DeviceEvent
    since: float


class Stopwatch:
    """Runs for devices that came or went, from when their event was read.

    The kernel's message has no time of its own.
    """

    def __init__(
        self, held: Callable[[], Iterable[Held]], clock: Callable[[], float] = monotonic
    ) -> None:
        """Take what tells which reservations there are now."""
        self._held = held
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}

    def start(self, event: DeviceEvent) -> None:
        """Start at the event of a device that came or went, unless all is done for it already.

        Where it runs for that already, it goes on: a driver's `bind` follows on the `add`.
        """
        now = self._clock()
        self._waiting = {
            name: each for name, each in self._waiting.items() if now - each.since < LONGEST
        }
        comes = event.action in _COMES
        if comes != bool(self._names(event.name)):
            before = self._waiting.get(event.name)
            if before is None or (before.event.action in _COMES) != comes:
                self._waiting[event.name] = _Waiting(event=event, since=now)

    def look(self) -> None:
        """Write down what is done by now."""
        for address, each in list(self._waiting.items()):
            names = self._names(address)
            comes = each.event.action in _COMES
            if comes and any(names.values()):
                told = f"reservation {_first_standing(names)} stands"
            elif not comes and not names:
                told = "nothing is reserved for it any more"
            else:
                continue
            del self._waiting[address]
            _log.info("event: %s: %s, %.3f s later", each.event, told, self._clock() - each.since)

    def _names(self, address: str) -> dict[str, bool]:
        """Return the reservations for a device, each with whether it stands."""
        return {each.name: each.standing for each in self._held() if address in each.devices}


def _first_standing(names: dict[str, bool]) -> str:
    return next(name for name, stands in names.items() if stands)
