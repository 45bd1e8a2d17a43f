# SPDX-License-Identifier: Apache-2.0
"""What reservations should stand, and what is to be done about those that do or do not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from zoned.errors import LimitUnknown
from zoned.model.dma.allot import DmaState
from zoned.model.dma.standing import fits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zoned.model.dma.allot import Report, Verdict
    from zoned.model.dma.held import Held
    from zoned.model.dma.ladder import Need
    from zoned.model.dma.wish import Wish

_WELL = frozenset({DmaState.RESERVED, DmaState.SATISFIED})
_MAY_BE_HAD = frozenset({DmaState.POSSIBLE, DmaState.UNSURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One reservation that should stand."""

    name: str
    wish: Wish
    need: Need
    devices: tuple[str, ...]
    """addresses of those that it is for; none while it waits for one"""
    verdict: Verdict
    """what each rung would do"""

    @property
    def may_be_had(self) -> bool:
        """Whether some rung that may be tried could hold."""
        return self.verdict.state in _MAY_BE_HAD

    def is_met_by(self, held: Held) -> bool:
        """Return whether a reservation is this one, whichever devices it is for."""
        need = self.need
        return held.standing and fits(held, size=need.size, mask=need.mask, rungs=need.rungs)


class What(StrEnum):
    """What is to be done about a reservation."""

    SET_UP = "set up"
    """it does not stand"""
    REPAIR = "repair"
    """it stands, but for other devices, or not as it should"""
    TAKE_DOWN = "take down"
    """nobody wants it"""


def wanted(reports: Iterable[Report]) -> dict[str, Wanted]:
    """Return what should stand, by name, the most important first."""
    found: dict[str, Wanted] = {}
    for report in reports:
        wish, verdict = report.wish, report.verdict
        if wish is None or verdict is None or verdict.need is None:
            continue
        devices = () if report.device is None else (report.device.address,)
        if report.name in found:
            devices = (*found[report.name].devices, *devices)
        found[report.name] = Wanted(
            name=report.name, wish=wish, need=verdict.need, devices=devices, verdict=verdict
        )
    return {each.name: each for each in sorted(found.values(), key=_importance)}


def _importance(wanted: Wanted) -> int:
    return -wanted.wish.priority


def unmet(reports: Iterable[Report], held: Mapping[str, Held]) -> Iterator[Report]:
    """Yield those for whom something is wanted and not there: one of each reservation, and each
    device of which the policy says two things.
    """
    seen = set()
    for report in reports:
        if report.verdict is None or report.state in _WELL:
            continue
        if report.verdict.code == LimitUnknown.code and _is_kept(report, held):
            continue  # It is between two drivers.
        key = report.name or id(report)
        if key not in seen:
            seen.add(key)
            yield report


def to_do(reports: Iterable[Report], held: Mapping[str, Held]) -> dict[str, What]:
    """Return what is to be done, by name: first what is to go, then the most important.

    What stands stays while nothing better can be had.
    """
    reports = list(reports)
    should = wanted(reports)
    kept = {report.name for report in reports if _is_kept(report, held)}
    found = {name: What.TAKE_DOWN for name in held if name not in should and name not in kept}
    for name, each in should.items():
        mine = held.get(name)
        if mine is None:
            if each.may_be_had:
                found[name] = What.SET_UP
        elif not mine.standing or (not each.is_met_by(mine) and each.may_be_had):
            found[name] = What.SET_UP
        elif each.is_met_by(mine) and set(mine.devices) != set(each.devices):
            found[name] = What.REPAIR
    return found


def _is_kept(report: Report, held: Mapping[str, Held]) -> bool:
    """Return whether what stands for a device stays, though nobody knows how far it reaches now:
    it has no driver, or the policy contradicts itself.
    """
    verdict = report.verdict
    refused = verdict is not None and verdict.state is DmaState.REFUSED and verdict.need is None
    return refused and report.name in held and held[report.name].standing
