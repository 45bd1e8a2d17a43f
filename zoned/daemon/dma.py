# SPDX-License-Identifier: Apache-2.0
"""Memory for devices as the daemon's clients see it, and what they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.api.types_dma import ReservationInfo, SpanInfo
from zoned.engine.dma.manual import PLACE, Manual
from zoned.engine.dma.sight import look
from zoned.model.dma.allot import DmaState, reach
from zoned.model.dma.held import dma_owner
from zoned.model.dma.rung import Rung
from zoned.policy import values, values_dma

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from zoned.engine.machine import Machine
    from zoned.model.dma.allot import Report
    from zoned.model.dma.held import Held
    from zoned.model.dma.offer import Span

USUAL_NAME = "manual"
"""What is asked for by hand is called so, if not otherwise."""
_MOST = (1 << 63) - 1


def manual(
    *, device: str, size: int, name: str | None, limit: str | None, rungs: Sequence[str] | None
) -> Manual:
    """Return what is asked for, judged as policy files are. Raises BadInput and its kinds."""
    return Manual(
        name=values_dma.name(name or USUAL_NAME),
        device=device,
        size=values.size(size),
        limit=None if limit is None else values_dma.limit_text(limit),
        rungs=tuple(Rung) if rungs is None else values_dma.rungs(list(rungs)),
    )


def list_reservations(
    machine: Machine, job_of: Callable[[str], int | None]
) -> list[ReservationInfo]:
    """Return all that is wanted or reserved. `job_of` tells which job holds a name."""
    held = machine.ledger.touched.reservations
    groups: dict[tuple[str, DmaState | None], list[Report]] = {}
    for report in look(machine):
        if report.verdict is not None:
            # What the policy contradicts itself about has no name.
            address = "" if report.device is None else report.device.address
            key = report.name or f"@{address}", report.state
            groups.setdefault(key, []).append(report)
    found = [_wanted(group, held.get(name), job_of) for (name, _), group in groups.items()]
    names = {name for name, _ in groups}
    found += [_leaving(each, job_of) for name, each in held.items() if name not in names]
    missing = (each for name, each in machine.manual.all.items() if name not in {*names, *held})
    return found + [_without_device(each) for each in missing]


def _wanted(
    group: list[Report], held: Held | None, job_of: Callable[[str], int | None]
) -> ReservationInfo:
    first = group[0]
    wish, verdict = first.wish, first.verdict
    step = None if verdict is None else verdict.step
    span = None if step is None else step.span
    need = None if verdict is None else verdict.need
    mask = need.mask if need is not None else reach(first.limit, wish) if wish else None
    reserved = first.state is DmaState.RESERVED
    return _info(
        first.name,
        held if first.state is not DmaState.SATISFIED else None,
        wish=wish.name if wish else "",
        by_hand=wish is not None and wish.place == PLACE,
        devices=[each.device.address for each in group if each.device is not None],
        size=wish.size if wish else 0,
        limit=mask,
        state=first.state or DmaState.POSSIBLE,
        rung=None if first.rung is None else str(first.rung),
        reserved=first.reserved,
        why="" if reserved or verdict is None else verdict.why,
        error=verdict.code if verdict else "",
        hint=verdict.hint if verdict else "",
        at_boot=None if span is None or reserved else _span(span),
        booted=step is not None and step.booted and not reserved,
        job=job_of(dma_owner(first.name)),
    )


def _leaving(held: Held, job_of: Callable[[str], int | None]) -> ReservationInfo:
    return _info(
        held.name,
        held,
        wish=held.name.rpartition("@")[0] or held.name,
        devices=list(held.devices),
        size=held.size,
        state=DmaState.LEAVING,
        limit=held.mask,
        rung=str(held.rung),
        reserved=held.size,
        why="nobody wants it any more",
        job=job_of(dma_owner(held.name)),
    )


def _without_device(asked: Manual) -> ReservationInfo:
    return _info(
        asked.reservation,
        None,
        wish=asked.name,
        by_hand=True,
        devices=[asked.device],
        size=asked.size,
        limit=asked.limit,
        state=DmaState.WAITING,
        why="its device is not there",
    )


def _info(
    name: str,
    held: Held | None,
    *,
    wish: str,
    devices: list[str],
    size: int,
    limit: int | None,
    by_hand: bool = False,
    state: DmaState,
    rung: str | None = None,
    reserved: int = 0,
    why: str = "",
    error: str = "",
    hint: str = "",
    at_boot: SpanInfo | None = None,
    booted: bool = False,
    job: int | None = None,
) -> ReservationInfo:
    return ReservationInfo(
        name=name,
        wish=wish,
        by_hand=by_hand,
        devices=devices,
        size=size,
        limit=None if limit is None or limit > _MOST else limit,
        state=str(state),
        rung=rung,
        reserved=reserved,
        why=why,
        error=error,
        hint=hint,
        at_boot=at_boot,
        booted=booted,
        standing=held is not None and held.standing,
        node=None if held is None else held.node,
        region=None if held is None else held.region,
        spans=_spans(() if held is None else held.spans),
        blocks=[] if held is None else list(held.blocks),
        above=[] if held is None else list(held.above),
        page=None if held is None else held.page,
        job=job,
    )


def _spans(spans: Iterable[Span]) -> list[SpanInfo]:
    return [_span(span) for span in spans]


def _span(span: Span) -> SpanInfo:
    return SpanInfo(start=span.start, size=span.size)
