# SPDX-License-Identifier: Apache-2.0
"""Machines made up of what they have."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from zoned.model.base import DaxDevice, DaxMode
from zoned.model.block import Outlook
from zoned.model.dma.ladder import Need, Step, climb
from zoned.model.dma.limit import bits_mask
from zoned.model.dma.offer import KernelZone, Offer, Span
from zoned.model.topology import Block, BlockState

if TYPE_CHECKING:
    from zoned.model.dma.rung import Rung

MIB, GIB = 1 << 20, 1 << 30
BLOCK = 128 * MIB


def low_block(number: int, *, can: bool | None = True, zones: str = "DMA32") -> Outlook:
    """Return a block of 128 MiB; one that can come back to several zones is offline."""
    words = tuple(zones.split())
    state = BlockState.OFFLINE if len(words) > 1 else BlockState.ONLINE
    block = Block(id=number, start=number * BLOCK, size=BLOCK, state=state, zones=words, node=0)
    return Outlook(block=block, can=can, why="" if can else "slab")


def region(
    name: str, start: int, size: int, *, node: int = 0, mode: DaxMode = DaxMode.DEVDAX
) -> DaxDevice:
    """Return a device-dax region of one range."""
    return DaxDevice(name=name, size=size, node=node, mode=mode, ranges=((start, size),))


SMALL = Offer(
    ram=(Span(4096, 636 * 1024), Span(MIB, 3 * GIB - MIB), Span(4 * GIB, 12 * GIB)),
    claimed=(Span(16 * MIB, 64 * MIB),),
    x86=True,
    zones=(
        KernelZone(
            node=0,
            name="DMA",
            start=4096,
            spanned=16 * MIB - 4096,
            present=15 * MIB,
            managed=15 * MIB,
            free=15 * MIB,
            covered=True,
        ),
        KernelZone(
            node=0,
            name="DMA32",
            start=16 * MIB,
            spanned=4 * GIB - 16 * MIB,
            present=3 * GIB - 16 * MIB,
            managed=3 * GIB - 64 * MIB,
            free=2 * GIB,
            covered=True,
        ),
        KernelZone(
            node=0,
            name="Normal",
            start=4 * GIB,
            spanned=12 * GIB,
            present=12 * GIB,
            managed=12 * GIB,
            free=GIB,
        ),
    ),
    ratio=(256, 256, 32, 0, 0),
    block_size=BLOCK,
    low_blocks=(low_block(0, can=False, zones="none"), *(low_block(n) for n in range(1, 24))),
    huge_sizes=(2 * MIB, GIB),
)
"""A machine of 15 GiB, of which 3 lie below 4 GiB. Its memory blocks have 128 MiB."""

LARGE = dataclasses.replace(
    SMALL,
    block_size=2 * GIB,
    low_blocks=(
        Outlook(
            block=Block(
                id=0, start=0, size=2 * GIB, state=BlockState.ONLINE, zones=("none",), node=0
            ),
            can=False,
            why="it has holes",
        ),
    ),
)
"""The same with memory blocks of 2 GiB, as machines of 64 GiB have them."""


def step(rung: Rung, offer: Offer, size: int = 256 * MIB, bits: int = 31, **need: Any) -> Step:
    """Return what becomes of one rung."""
    wanted = Need(size=size, mask=bits_mask(bits), **need)
    return next(each for each in climb(wanted, offer) if each.rung is rung)
