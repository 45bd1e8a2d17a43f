# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma`: devices that cannot reach all memory, and memory that is reserved for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoned.cli.dma_commands import dma
from zoned.cli.output import Format, emit, output_option
from zoned.cli.talk import Session, pass_session, sign_of_life
from zoned.cli.topology import sysroot_option
from zoned.errors import UnknownDevice, UsageError
from zoned.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoned.api.types_dma import ReservationInfo
    from zoned.kernel.root import Root
    from zoned.model.dma.allot import Report
    from zoned.model.dma.device import Device
    from zoned.model.dma.wish import DmaPolicy, Wish

_NOT_ROOT = "only root can see all that memory could come from"


def config_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--config DIR`; it receives the folder, or None."""
    return click.option(
        "--config",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Read policy from zones.d below DIR only.",
    )(command)


@dma.command("list")
@output_option
@sysroot_option
@config_option
@pass_session
def list_dma(session: Session, output: Format, root: Root, config: Path | None) -> None:
    """List the devices that do DMA, how far they reach, and what is reserved for them.

    LIMIT is how far the device can address, SOURCE who says so: the place in the policy, or the
    driver that has it; "-" is unknown. Without a driver the kernel knows nothing. FOR is the
    reservation, NEEDED its size, RESERVED what is there of it, RUNG the way in which it is held, or
    could be had here.

    All PCI devices are listed, and of the platform's those of which something is known. Without the
    daemon, or with --config, it is told what could be had; without root much of that is unknown.
    """
    from zoned.cli.dma_tables import reports_data, reports_notes, reports_table

    found = [each for each in _listed(session, root, config) if _is_of_interest(each)]
    notes = reports_notes(found)
    emit(output, reports_data(found), reports_table(found), notes=[*notes, *_unseen(root, found)])


@dma.command()
@click.argument("device", metavar="DEVICE")
@click.option("--size", help="As if so much were wanted for it, e.g. 256MiB.")
@click.option(
    "--limit",
    metavar="BITS|ADDRESS",
    help="With --size: as if it reached no further, e.g. 31 or 0x7fffffff.",
)
@output_option
@sysroot_option
@config_option
@pass_session
def explain(
    session: Session,
    device: str,
    size: str | None,
    limit: str | None,
    output: Format,
    root: Root,
    config: Path | None,
) -> None:
    """Tell all about one device: how far it reaches, how that is known, and rung by rung whether
    memory for it could be had there, and why not.

    DEVICE is a PCI address like 0000:3b:00.0 or 3b:00.0, or the name of a platform device. Of the
    rung that could hold, it is told what can be relied on and what cannot.

    \b
    zonectl dma explain 3b:00.0
    zonectl dma explain 3b:00.0 --size 256MiB --limit 31
    """
    from zoned.cli.dma_tables import explained_data, explained_notes, explained_tables

    asked = _asked(size, limit)
    found = _reports(root, config, device, asked, _told(session, root, config))
    each = next(one for one in found if one.device is not None and _is_called(one.device, device))
    notes = [*explained_notes(each), *_unseen(root, [each])]
    emit(output, explained_data(each), *explained_tables(each), notes=notes)


def _listed(session: Session, root: Root, config: Path | None) -> Sequence[Report]:
    """Return how it stands with all devices, by the daemon's word where it can be asked."""
    told = _told(session, root, config)
    if told is None:
        return _reports(root, config)
    from zoned.cli.dma_live import merged
    from zoned.kernel.devices import read_devices
    from zoned.model.dma.allot import reports
    from zoned.model.dma.offer import Offer

    return merged(reports(read_devices(root), _policy(config), Offer()), told)


def _told(session: Session, root: Root, config: Path | None) -> Sequence[ReservationInfo] | None:
    """Return what the daemon knows; None where it cannot be asked, or is not to be."""
    if not root.live or config is not None:
        return None
    from zoned.cli.dma_live import reservations

    return reservations(session)


def _reports(
    root: Root,
    config: Path | None,
    name: str = "",
    asked: Wish | None = None,
    told: Sequence[ReservationInfo] | None = None,
) -> tuple[Report, ...]:
    """Return how it stands with all devices; `name` has to be one of them, and `asked` is what is
    wanted for it, where not None. `told` is what the daemon knows.
    """
    from zoned.cli.dma_live import asked_by_hand, held_of
    from zoned.kernel.devices import read_devices
    from zoned.model.dma.allot import anything_wanted, reports
    from zoned.model.dma.offer import Offer

    policy = _policy(config)
    devices = read_devices(root)
    named = [_find(devices, name).address] if name else []
    instead = asked_by_hand(told or ())
    instead |= {address: asked for address in named if asked is not None}
    if not instead and not anything_wanted(devices, policy):
        return reports(devices, policy, Offer())
    # The plain list does without.
    from zoned.kernel.dma_offer import read_offer

    with sign_of_life("looking at memory"):
        offer = read_offer(root)
    return reports(devices, policy, offer, instead, held_of(told or ()))


def _policy(config: Path | None) -> DmaPolicy:
    from zoned.policy import files
    from zoned.policy.load import load

    return load(files.DIRECTORIES if config is None else [config]).dma


def _find(devices: Sequence[Device], name: str) -> Device:
    for device in devices:
        if _is_called(device, name):
            return device
    raise UnknownDevice(f"there is no device {name!r}", hint="see: zonectl dma list")


def _is_called(device: Device, name: str) -> bool:
    from zoned.model.dma.device import addresses_of

    return device.address in addresses_of(name)


def _asked(size: str | None, limit: str | None) -> Wish | None:
    """Return what is wanted as if the policy said so, last in line; None without a size."""
    if size is None:
        if limit is not None:
            raise UsageError("--limit needs --size")
        return None
    from zoned.model.dma.match import Match
    from zoned.model.dma.wish import Wish
    from zoned.policy.values_dma import limit_text

    mask = None if limit is None else limit_text(limit)
    return Wish(name="", match=Match(), size=parse_size(size), limit=mask, priority=-1)


def _is_of_interest(report: Report) -> bool:
    from zoned.model.dma.device import Bus

    device = report.device
    known = report.limit.mask is not None or report.verdict is not None
    return known or (device is not None and device.bus is Bus.PCI)


def _unseen(root: Root, found: Sequence[Report]) -> list[str]:
    climbed = any(each.verdict is not None and len(each.verdict.steps) > 1 for each in found)
    return [_NOT_ROOT] if climbed and root.live and os.geteuid() != 0 else []
