# SPDX-License-Identifier: Apache-2.0
"""What groups of cgroup v2 are kept off and how they are filled, with systemd and without."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.unit.fake_sys import NODES, write
from tests.unit.kernel.cgroup.fakes import FakeKernel, add_process, fake_root

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root

ALL = frozenset({0, 1, 2, 3})
EVER = ALL | {4}
LEFT = EVER - {3}


def fenced_root(folder: Path) -> Root:
    """Return a root with this process, and with a fifth node that may come."""
    root = fake_root(folder)
    write(folder, {f"{NODES}/possible": "0-4", f"{NODES}/has_normal_memory": "0-2"})
    add_process(root, os.getpid())
    return root


def enter(kernel: FakeKernel, group: str, pid: int) -> None:
    """Have a process in a group."""
    if not (kernel.root.proc / str(pid)).exists():
        add_process(kernel.root, pid)
    kernel.write(kernel.root.cgroup / group / "cgroup.procs", str(pid))
