# SPDX-License-Identifier: Apache-2.0
"""What the daemon knows of memory for devices, put together with what can be seen from here."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.api.types_dma import ReservationInfo
from zoned.cli.talk import call
from zoned.errors import Denied, NoDaemon
from zoned.model.dma.allot import DmaState, Report, Verdict
from zoned.model.dma.held import Held
from zoned.model.dma.ladder import Step
from zoned.model.dma.limit import Limit
from zoned.model.dma.match import Match
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung
from zoned.model.dma.wish import Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zoned.cli.talk import Session


def reservations(session: Session) -> list[ReservationInfo] | None:
    """Return what is wanted and reserved; None where the daemon cannot be asked."""
    with contextlib.suppress(NoDaemon, Denied):
        return call(session, "Dma.List", list[ReservationInfo], doing="asking the daemon")
    return None


def merged(reports: Iterable[Report], infos: Sequence[ReservationInfo]) -> list[Report]:
    """Return how it stands with each device by the daemon's word, then what has no device here."""
    by_device = {address: info for info in infos for address in info.devices}
    found, told = [], set()
    for report in reports:
        info = by_device.get(report.device.address) if report.device is not None else None
        if report.device is None:
            continue
        if info is not None:
            told.add(info.name)
        found.append(
            replace(report, wish=None, verdict=None) if info is None else _by(report, info)
        )
    rest = (info for info in infos if info.name not in told)
    return found + [_by(Report(device=None, limit=Limit()), info) for info in rest]


def held_of(infos: Iterable[ReservationInfo]) -> dict[str, Held]:
    """Return what is reserved, as the ledger has it."""
    return {
        each.name: _held(each, Rung(each.rung)) for each in infos if each.rung and each.reserved
    }


def asked_by_hand(infos: Iterable[ReservationInfo]) -> dict[str, Wish]:
    """Return what was asked for by hand, by the device's address."""
    return {
        address: wish
        for each in infos
        if each.by_hand and (wish := _wish(each)) is not None
        for address in each.devices
    }


def _by(report: Report, info: ReservationInfo) -> Report:
    wish = report.wish if report.wish is not None and report.wish.name == info.wish else _wish(info)
    state = DmaState(info.state)
    step = None
    if info.rung is not None:
        boot = info.at_boot
        span = None if boot is None else Span(boot.start, boot.size)
        rung = Rung(info.rung)
        step = Step(rung=rung, holds=True, why=info.why, span=span, booted=info.booted)
    verdict = Verdict(state=state, why=info.why, code=info.error, hint=info.hint, step=step)
    holding = Rung(info.rung) if info.rung and state is DmaState.RESERVED else None
    return replace(
        report,
        wish=wish,
        verdict=verdict,
        name=info.name,
        reserved=info.reserved,
        holding=holding,
    )


def _wish(info: ReservationInfo) -> Wish | None:
    if not info.wish:
        return None  # of which the policy says two things
    return Wish(name=info.wish, match=Match(), size=info.size, limit=info.limit)


def _held(info: ReservationInfo, rung: Rung) -> Held:
    return Held(
        name=info.name,
        rung=rung,
        size=info.reserved,
        mask=info.limit or (1 << 64) - 1,
        devices=tuple(info.devices),
        standing=info.standing,
        node=info.node,
        region=info.region,
        spans=tuple(Span(each.start, each.size) for each in info.spans),
        blocks=tuple(info.blocks),
        above=tuple(info.above),
        page=info.page,
    )
