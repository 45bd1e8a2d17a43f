# SPDX-License-Identifier: Apache-2.0
"""Device-dax regions whose change of drivers was cut off with the daemon: undone, or finished."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from zoned.engine.base.bind import become_device
from zoned.engine.base.target import key_of
from zoned.engine.blocks.hands import Direct
from zoned.errors import TryLater, ZonedError
from zoned.idset import format_ids
from zoned.kernel.dax import read_dax
from zoned.kernel.memory_block import block_size, read_block
from zoned.model.base import DaxMode
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zoned.engine.machine import Machine
    from zoned.model.base import DaxDevice

_log = logging.getLogger(__name__)


class RegionKeeper:
    """Looks after the regions in the ledger. For the thread that changes the machine."""

    def __init__(
        self,
        machine: Machine,
        start: Callable[[JobKind, Mapping[str, Any]], None],
        is_busy: Callable[[str], bool],
    ) -> None:
        """Take what starts a job, and what tells whether one works on a node."""
        self._machine = machine
        self._start = start
        self._is_busy = is_busy

    def settle(self) -> None:
        """Give regions back to programs that no driver has, and forget those that are settled.

        Where a job is at work it is left to that. What has become memory stays: see `finish`.
        """
        found = self._changing()
        for name in self._machine.ledger.touched.regions.keys() - found.keys():
            self._machine.ledger.regions_settled([name])
        for device in found.values():
            if self._is_busy(key_of(device.node)):
                continue
            try:
                self._settle(device)
            except ZonedError as error:
                _log.warning("%s: [%s] %s", device.name, error.code, error)

    def give_back(self) -> list[str]:
        """Settle what can be; return the regions that stay without a driver."""
        self.settle()
        return [
            f"{device.name}: no driver has it, so it is neither memory nor programs'"
            for device in self._changing().values()
            if device.mode is DaxMode.DISABLED
        ]

    def finish(self) -> None:
        """Start a job for each region that became memory and whose blocks may be offline still,
        unless the one that was cut off goes on.
        """
        for device in self._changing().values():
            if device.mode is DaxMode.SYSTEM_RAM and not self._is_busy(key_of(device.node)):
                self._finish(device)

    def _changing(self) -> dict[str, DaxDevice]:
        noted = self._machine.ledger.touched.regions
        if not noted:
            return {}
        return {each.name: each for each in read_dax(self._machine.root) if each.name in noted}

    def _finish(self, device: DaxDevice) -> None:
        # With blocks that are named, what else is known of the node stays as it is.
        blocks = format_ids(self._blocks_of(device))
        try:
            self._start(JobKind.BASE_ADD, {"base": device.name, "blocks": blocks})
        except TryLater:
            return
        except ZonedError as error:
            _log.warning("%s: [%s] %s", device.name, error.code, error)
            self._machine.ledger.regions_settled([device.name])

    def _settle(self, device: DaxDevice) -> None:
        former = self._machine.ledger.touched.regions[device.name]
        if is_cut_off(former, device.mode, has_blocks=bool(self._blocks_of(device))):
            become_device(self._machine, Direct(), device)
            _log.warning("%s was between drivers, and is programs' again", device.name)
        elif former is not DaxMode.SYSTEM_RAM and device.mode is DaxMode.SYSTEM_RAM:
            return
        self._machine.ledger.regions_settled([device.name])

    def _blocks_of(self, device: DaxDevice) -> frozenset[int]:
        size = block_size(self._machine.root)
        blocks = device.blocks(size) if size else frozenset[int]()
        return frozenset(each for each in blocks if read_block(self._machine.root, each))


def is_cut_off(former: DaxMode, mode: DaxMode, *, has_blocks: bool) -> bool:
    """Return whether a region is neither memory nor programs', though it was one of them before.

    The kernel can have taken its blocks away while their driver still has it.
    """
    if mode is DaxMode.SYSTEM_RAM:
        return not has_blocks
    return mode is DaxMode.DISABLED and former is not DaxMode.DISABLED
