# SPDX-License-Identifier: Apache-2.0
"""Devices and what could be done for them, as data, as tables, and in words."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from zoned.cli.output import Row, Table, columns
from zoned.model.dma.allot import DmaState, reach
from zoned.model.dma.boot_line import afterwards, boot_words, to_do
from zoned.model.dma.device import Iommu
from zoned.model.dma.limit import LimitSource, mask_text
from zoned.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoned.model.dma.allot import Report
    from zoned.model.dma.device import Device
    from zoned.model.dma.ladder import Step
    from zoned.model.dma.limit import Limit
    from zoned.model.dma.offer import Span
    from zoned.model.dma.wish import Wish

_DEVICE_KEYS = (
    "device",
    "bus",
    "path",
    "id",
    "subsystem",
    "class",
    "modalias",
    "driver",
    "node",
    "masks",
    "iommu",
    "iommu_group",
)
_HEADS = ("DEVICE", "ID", "DRIVER", ">NODE", "IOMMU", "LIMIT", "SOURCE", "FOR")
_HOLDS = {True: "yes", False: "no", None: None}
_IN_TROUBLE = frozenset(
    {
        DmaState.REFUSED,
        DmaState.IMPOSSIBLE,
        DmaState.UNSURE,
        DmaState.WAITING,
        DmaState.LEAVING,
    }
)


def reports_data(found: Sequence[Report]) -> list[dict[str, object]]:
    """Return what `zonectl dma list -o json` prints."""
    return [_data(each) for each in found]


def explained_data(report: Report) -> dict[str, object]:
    """Return what `zonectl dma explain -o json` prints."""
    steps = () if report.verdict is None else report.verdict.steps
    return {**_data(report), "rungs": [_step_data(step) for step in steps]}


def reports_table(found: Sequence[Report]) -> Table:
    """Return devices as lines of a table."""
    heads = columns(*_HEADS, ">NEEDED", ">RESERVED", "RUNG", "STATE")
    return Table(columns=heads, rows=[_row(each) for each in found])


def reports_notes(found: Sequence[Report]) -> list[str]:
    """Return what a line has no room for: troubles, and words for the kernel's command line."""
    notes = list(dict.fromkeys(_troubles(found)))
    notes += _at_next_boot(found)
    return ["", *notes] if notes else []


def explained_tables(report: Report) -> list[Table]:
    """Return all about one device: what it is, and the ladder where there is one."""
    tables = [Table(columns=columns("DEVICE", _name(report)), rows=list(_facts(report)))]
    steps = () if report.verdict is None else report.verdict.steps
    if steps:
        rows: list[Row] = [[str(step.rung), _HOLDS[step.holds], step.why] for step in steps]
        tables.append(Table(columns=columns("RUNG", "COULD HOLD", "WHY"), rows=rows))
    return tables


def explained_notes(report: Report) -> list[str]:
    """Return what can be relied on where the rung holds that could, and what cannot."""
    notes = list(_troubles([report]))
    if report.verdict is not None and report.state is DmaState.SATISFIED:
        notes.append(f"nothing is needed: {report.verdict.why}")
    rung = report.rung
    if rung is not None:
        notes += [
            f"{rung}: {rung.what}",
            f"promised: {rung.promises}",
            f"not promised: {rung.cannot_promise}",
        ]
    notes += _at_next_boot([report])
    if report.verdict is None:
        notes.append("nothing is wanted for it; --size tells what could be had")
    return ["", *notes]


def _data(report: Report) -> dict[str, object]:
    return {
        **_device_data(report.device),
        "limit": _limit_data(report.limit),
        **_wish_data(report.wish),
        "name": report.name or None,
        "reserved": report.reserved,
        "rung": None if report.rung is None else str(report.rung),
        "state": None if report.state is None else str(report.state),
        "why": None if report.verdict is None else report.verdict.why,
        "error": None if report.verdict is None else report.verdict.code or None,
        "kernel_words": _words(report),
    }


def _device_data(device: Device | None) -> dict[str, object]:
    if device is None:
        return dict.fromkeys(_DEVICE_KEYS)
    iommu = None if device.iommu is Iommu.UNKNOWN else str(device.iommu)
    masks = {"dma": device.mask_bits, "coherent": device.coherent_bits}
    values: list[object] = [
        device.address,
        str(device.bus),
        device.path,
        device.id,
        device.subsystem,
        device.class_text,
        device.modalias,
        device.driver,
        device.node,
        masks,
        iommu,
        device.iommu_group,
    ]
    return dict(zip(_DEVICE_KEYS, values, strict=True))


def _wish_data(wish: Wish | None) -> dict[str, object]:
    if wish is None:
        return {"reservation": None, "pool": None, "needed": None}
    return {"reservation": wish.name or None, "pool": wish.pool, "needed": wish.size}


def _limit_data(limit: Limit) -> dict[str, object]:
    known = limit.source is not LimitSource.UNKNOWN
    return {
        "bits": limit.bits,
        "address": limit.mask,
        "source": str(limit.source) if known else None,
        "place": limit.place or None,
        "reason": limit.reason or None,
    }


def _step_data(step: Step) -> dict[str, object]:
    return {
        "rung": str(step.rung),
        "holds": step.holds,
        "why": step.why,
        "promises": step.rung.promises,
        "cannot_promise": step.rung.cannot_promise,
    }


def _row(report: Report) -> Row:
    return [
        *_device_cells(report),
        None if report.limit.mask is None else str(report.limit),
        _source(report.limit),
        *_wish_cells(report),
        None if report.rung is None else str(report.rung),
        None if report.state is None else str(report.state),
    ]


def _device_cells(report: Report) -> Row:
    device = report.device
    if device is None:
        return [_name(report), None, None, None, None]
    iommu = None if device.iommu is Iommu.UNKNOWN else str(device.iommu)
    return [device.address, device.id, device.driver, device.node, iommu]


def _wish_cells(report: Report) -> Row:
    wish = report.wish
    if wish is None:
        return [None, None, None]
    name = f"{wish.name} (pool {wish.pool})" if wish.pool else wish.name
    return [name, format_size(wish.size), format_size(report.reserved)]


def _name(report: Report) -> str:
    return "none there" if report.device is None else report.device.address


def _source(limit: Limit) -> str | None:
    """Return e.g. ``50-site.yaml:3``, or ``driver aacraid``."""
    if limit.source is LimitSource.UNKNOWN:
        return None
    return "driver" if limit.source is LimitSource.DRIVER else PurePath(limit.place).name


def _troubles(found: Sequence[Report]) -> Iterator[str]:
    for each in found:
        if each.verdict is None or each.state not in _IN_TROUBLE:
            continue
        code = f"[{each.verdict.code}] " if each.verdict.code else ""
        hint = f" ({each.verdict.hint})" if each.verdict.hint else ""
        name = each.wish.name if each.device is None and each.wish else _name(each)
        yield f"{name}: {code}{each.verdict.why}{hint}"


def _words(report: Report) -> str | None:
    span = _at_boot(report, booted=False)
    return None if span is None else boot_words(span)


def _at_boot(report: Report, *, booted: bool) -> Span | None:
    step = None if report.verdict is None else report.verdict.step
    if step is None or step.booted is not booted or report.holding is not None:
        return None
    return step.span


def _at_next_boot(found: Sequence[Report]) -> list[str]:
    """Return what to do for all of these together."""
    told = [to_do(span, booted=True) for span in _spans(found, booted=True)]
    spans = _spans(found, booted=False)
    if spans:
        told.append(f"add to the kernel's command line: {' '.join(map(boot_words, spans))}")
    return told + [f"and once after that boot: {afterwards(span)}" for span in spans]


def _spans(found: Sequence[Report], *, booted: bool) -> list[Span]:
    spans = (_at_boot(each, booted=booted) for each in found)
    return list(dict.fromkeys(span for span in spans if span is not None))


def _facts(report: Report) -> Iterator[Row]:
    device, limit, wish = report.device, report.limit, report.wish
    if device is not None:
        yield "path", device.path
        yield "id", device.id
        yield "subsystem", device.subsystem
        yield "class", device.class_text
        yield "driver", device.driver or "none"
        yield "node", device.node
        yield "masks", _masks(device)
        yield "iommu", None if device.iommu is Iommu.UNKNOWN else str(device.iommu)
    yield "limit", str(limit)
    yield "known from", limit.place or None
    yield "because", limit.reason or None
    if wish is not None:
        yield "wanted for", wish.name or None
        mask = reach(limit, wish)
        yield "needed", format_size(wish.size)
        yield "below", None if mask is None else mask_text(mask)
        yield "reserved", format_size(report.reserved)
        yield "state", str(report.state)


def _masks(device: Device) -> str | None:
    """Return e.g. ``32 bits, coherent 31``; whatever they are worth."""
    if device.mask_bits is None or device.coherent_bits is None:
        return None
    return f"{device.mask_bits} bits, coherent {device.coherent_bits}"
