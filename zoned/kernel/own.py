# SPDX-License-Identifier: Apache-2.0
"""Facts about this boot and about zoned's own process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zoned.errors import BadList
from zoned.idset import parse_ids
from zoned.kernel.root import read_text

if TYPE_CHECKING:
    from zoned.kernel.root import Root


def boot_id(root: Root) -> str | None:
    """Return the id that changes with every boot (random(4)), or None where it is not known."""
    return read_text(root.proc / "sys/kernel/random/boot_id")


def own_nodes(root: Root) -> frozenset[int] | None:
    """Return the nodes that this process may use (proc_pid_status(5), Mems_allowed_list)."""
    for line in (read_text(root.proc / "self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Mems_allowed_list":
            try:
                return parse_ids(value)
            except BadList:
                return None
    return None


def numa_balancing(root: Root) -> bool:
    """Return whether the kernel itself moves pages to the CPUs that use them.

    Source: Documentation/admin-guide/sysctl/kernel.rst (numa_balancing).
    """
    return read_text(root.proc / "sys/kernel/numa_balancing") not in {None, "", "0"}


def is_service() -> bool:
    """Return whether systemd has started this very process for a service.

    Those ignore SIGPIPE, unless their unit says otherwise (IgnoreSIGPIPE= in systemd.exec(5), which
    also tells of the variable; systemd 248). What was ignored from the start cannot be seen any
    more: the interpreter ignores it, too.
    """
    return os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def initial_environment(root: Root) -> dict[bytes, bytes]:
    """Return the environment that this process was started with (proc_pid_environ(5)).

    The interpreter changes its own (PEP 538 sets LC_CTYPE), which a program that is started from
    here must not see. Where it cannot be read, the present one is the next best.
    """
    try:
        raw = (root.proc / "self/environ").read_bytes()
    except OSError:
        return dict(os.environb)
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {name: value for name, equals, value in pairs if name and equals}
