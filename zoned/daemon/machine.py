# SPDX-License-Identifier: Apache-2.0
"""What the command line says, and the machine that it points at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoned.engine.dma.manual import ManualStore
from zoned.engine.ledger import Ledger
from zoned.engine.machine import Machine
from zoned.engine.store import Store
from zoned.kernel.cgroup.detect import choose_driver, choose_fence, choose_units
from zoned.kernel.own import boot_id
from zoned.kernel.own_policy import OwnMemory
from zoned.kernel.root import Root, sysroot

STATE = Path("/var/lib/zoned")
RUNTIME = Path("/run/zoned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said."""

    config: Path | None
    socket: Path
    state: Path | None
    sysroot: Path | None
    group: str


def build_machine(options: Options) -> Machine:
    """Return the machine that the options point at. Raises Unsupported, StateDamaged."""
    root = sysroot(options.sysroot) if options.sysroot else Root()
    return Machine(
        root=root,
        groups=choose_driver(root, options.group),
        units=choose_units(root, options.group),
        store=Store(options.state or STATE),
        ledger=Ledger(options.state or RUNTIME, boot_id(root)),
        manual=ManualStore(options.state or STATE),
        fence=choose_fence(root, options.group),
        own_memory=OwnMemory(root) if root.live else None,
    )
