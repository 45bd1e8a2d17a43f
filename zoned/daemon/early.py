# SPDX-License-Identifier: Apache-2.0
"""`zoned early`: reserves memory for devices at boot, and leaves the rest to the daemon."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from zoned.daemon.machine import RUNTIME, build_machine
from zoned.engine.dma.early import Limited, reserve_early
from zoned.errors import TryLater
from zoned.kernel.state_file import lock_folder
from zoned.policy.files import DIRECTORIES
from zoned.policy.load import load

if TYPE_CHECKING:
    from zoned.daemon.machine import Options

_log = logging.getLogger(__name__)


def run_early(options: Options, seconds: float) -> None:
    """Reserve what the policy wants, for so many seconds; the ledger has it then.

    Does nothing where the daemon runs. Raises ZonedError where it cannot begin.
    """
    began = time.monotonic()
    try:
        lock = lock_folder(options.state or RUNTIME)
    except TryLater:
        _log.info("the daemon runs, and sees to it")
        return
    try:
        machine = build_machine(options)
        machine.policy = load((options.config,) if options.config else DIRECTORIES)
        for why in reserve_early(machine, Limited(seconds)):
            _log.warning("%s; left to the daemon", why)
        standing = [each for each in machine.ledger.touched.reservations.values() if each.standing]
        _log.info("reservations that stand: %d, %.2f s", len(standing), time.monotonic() - began)
    finally:
        os.close(lock)
