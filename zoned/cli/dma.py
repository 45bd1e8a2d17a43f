# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma`: devices that cannot reach all memory, and what could be done for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoned.cli.output import Format, emit, output_option
from zoned.cli.talk import sign_of_life
from zoned.cli.topology import sysroot_option
from zoned.errors import UnknownDevice, UsageError
from zoned.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


@click.group
def dma() -> None:
    """Look at devices that cannot reach all memory, and at what could be done for them."""


@dma.command("list")
@output_option
@sysroot_option
@config_option
def list_dma(output: Format, root: Root, config: Path | None) -> None:
    """List the devices that do DMA, how far they reach, and what the policy wants for them.

    LIMIT is how far the device can address, SOURCE who says so: the place in the policy, or the
    driver that has it; "-" is unknown. Without a driver the kernel knows nothing. FOR is the
    reservation of the policy, NEEDED its size, RUNG the way in which it could be had here.

    zoned reserves nothing for devices yet, so RESERVED is always 0. All PCI devices are listed,
    and of the platform's those of which something is known. No daemon and no root needed, but
    without root much of RUNG cannot be told.
    """
    from zoned.cli.dma_tables import reports_data, reports_notes, reports_table

    found = [each for each in _reports(root, config) if _is_of_interest(each)]
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
def explain(
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
    found = _reports(root, config, device, asked)
    each = next(one for one in found if one.device is not None and _is_called(one.device, device))
    notes = [*explained_notes(each), *_unseen(root, [each])]
    emit(output, explained_data(each), *explained_tables(each), notes=notes)


def _reports(
    root: Root, config: Path | None, name: str = "", asked: Wish | None = None
) -> tuple[Report, ...]:
    """Return how it stands with all devices; `name` has to be one of them, and `asked` is what is
    wanted for it, where not None.
    """
    from zoned.kernel.devices import read_devices
    from zoned.model.dma.allot import anything_wanted, reports
    from zoned.model.dma.offer import Offer

    policy = _policy(config)
    devices = read_devices(root)
    named = [_find(devices, name).address] if name else []
    instead = {address: asked for address in named if asked is not None}
    if not instead and not anything_wanted(devices, policy):
        return reports(devices, policy, Offer())
    # The plain list does without.
    from zoned.kernel.dma_offer import read_offer

    with sign_of_life("looking at memory"):
        offer = read_offer(root)
    return reports(devices, policy, offer, instead)


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
    return device.address in {name, name.lower(), f"0000:{name.lower()}"}


def _asked(size: str | None, limit: str | None) -> Wish | None:
    """Return what is wanted as if the policy said so, last in line; None without a size."""
    if size is None:
        if limit is not None:
            raise UsageError("--limit needs --size")
        return None
    from zoned.model.dma.match import Match
    from zoned.model.dma.wish import Wish
    from zoned.policy.values_dma import limit as highest

    # The policy's numbers are numbers; those of a command line are text.
    is_bits = limit is not None and limit.isascii() and limit.isdigit() and len(limit) < 4
    mask = None if limit is None else highest(int(limit) if is_bits else limit)
    return Wish(name="", match=Match(), size=parse_size(size), limit=mask, priority=-1)


def _is_of_interest(report: Report) -> bool:
    from zoned.model.dma.device import Bus

    device = report.device
    known = report.limit.mask is not None or report.verdict is not None
    return known or (device is not None and device.bus is Bus.PCI)


def _unseen(root: Root, found: Sequence[Report]) -> list[str]:
    climbed = any(each.verdict is not None and len(each.verdict.steps) > 1 for each in found)
    return [_NOT_ROOT] if climbed and root.live and os.geteuid() != 0 else []
