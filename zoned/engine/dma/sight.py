# SPDX-License-Identifier: Apache-2.0
"""One look at the devices, at what is wanted for them, and at what there is. Changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoned.engine.dma.wanted import wanted
from zoned.errors import UnknownDevice
from zoned.kernel.devices import read_devices
from zoned.kernel.dma_offer import read_offer
from zoned.model.dma.allot import anything_wanted, reports
from zoned.model.dma.device import addresses_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoned.engine.dma.manual import Manual
    from zoned.engine.dma.wanted import Wanted
    from zoned.engine.machine import Machine
    from zoned.model.block import Outlook
    from zoned.model.dma.allot import Report
    from zoned.model.dma.device import Device


def look(
    machine: Machine,
    *,
    devices: Sequence[Device] | None = None,
    more: Manual | None = None,
    whole: bool = True,
    low_blocks: tuple[Outlook, ...] | None = None,
) -> tuple[Report, ...]:
    """Return how it stands with each device, see `reports`; none where nothing is wanted.

    `devices` are those there are, and `low_blocks` the memory blocks, where they were just read;
    `more` is wanted besides. Without `whole` the pages of memory blocks are not looked at, so what
    rungs say of them is worth nothing. Raises MachineError where the machine cannot be read.
    """
    instead = machine.manual.wishes
    if more is not None:
        instead[more.device] = more.wish
    policy, held = machine.policy.dma, machine.ledger.touched.reservations
    if not instead and not policy.wishes:
        return ()
    if devices is None:
        devices = read_devices(machine.root)
    if not instead and not anything_wanted(devices, policy):
        return ()
    offer = read_offer(machine.root, blocks=whole and low_blocks is None)
    if low_blocks is not None:
        offer = replace(offer, low_blocks=low_blocks)
    return reports(devices, policy, offer, instead, held)


def look_for(machine: Machine, name: str) -> Wanted | None:
    """Return what is wanted under a name, now; None where nothing is.

    The pages of memory blocks are not looked at again where whoever began this just did.
    """
    return wanted(look(machine, low_blocks=machine.low_blocks.pop(name, None))).get(name)


def find_device(machine: Machine, address: str) -> Device:
    """Return a device by its address, of which PCI's domain may be left out.

    Raises UnknownDevice.
    """
    addresses = addresses_of(address)
    for device in read_devices(machine.root):
        if device.address in addresses:
            return device
    raise UnknownDevice(f"there is no device {address!r}", hint="see: zonectl dma list")
