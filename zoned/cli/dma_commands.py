# SPDX-License-Identifier: Apache-2.0
"""`zonectl dma`: the group alone, because `dma prepare` is run while a device waits."""

from __future__ import annotations

import click

from zoned.cli.on_demand import OnDemand

_COMMANDS = OnDemand(
    {
        "list": "zoned.cli.dma:list_dma",
        "explain": "zoned.cli.dma:explain",
        "check": "zoned.cli.dma_reserve:check",
        "reserve": "zoned.cli.dma_reserve:reserve",
        "release": "zoned.cli.dma_reserve:release",
        "alloc": "zoned.cli.dma_buffers:alloc",
        "leases": "zoned.cli.dma_buffers:leases",
        "prepare": "zoned.cli.prepare:prepare",
    }
)


@click.group(commands=_COMMANDS)
def dma() -> None:
    """Look at devices that cannot reach all memory, reserve memory for them, and lend it."""
