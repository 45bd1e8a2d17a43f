# SPDX-License-Identifier: Apache-2.0
"""One look at everything that memory for a device could come from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.kernel.block_outlook import outlooks
from zoned.kernel.boot import is_x86, read_initrd
from zoned.kernel.cma import find_areas
from zoned.kernel.dax import read_dax
from zoned.kernel.iomem import read_iomem
from zoned.kernel.kernel_zones import read_kernel_zones, read_ratio
from zoned.kernel.memory_block import block_size, numbered, read_blocks
from zoned.kernel.pmem import pmem_of, set_aside_at_boot
from zoned.model.dma.offer import Offer, Span

if TYPE_CHECKING:
    from zoned.kernel.iomem import Resource
    from zoned.kernel.root import Root
    from zoned.model.block import Outlook

_LOW_END = 1 << 32
_RAM = "System RAM"
_HUGE = re.compile(r"hugepages-(\d+)kB")


def read_offer(root: Root, *, blocks: bool = True) -> Offer:
    """Return what the machine has. To all but root much of it is unknown.

    Looks at every page of the memory blocks below 4 GiB, unless `blocks` is False: then there are
    none. Raises MachineError for a file that cannot be read.
    """
    resources, zones = read_iomem(root), read_kernel_zones(root)
    return Offer(
        ram=None if resources is None else _ram(resources),
        claimed=_claimed(root, resources or ()),
        pmem=pmem_of(resources or ()),
        set_aside=set_aside_at_boot(root, resources or ()),
        x86=is_x86(root),
        regions=read_dax(root),
        zones=zones,
        ratio=read_ratio(root),
        areas=find_areas(root, sum(zone.cma for zone in zones or ())),
        block_size=block_size(root),
        low_blocks=read_low_blocks(root) if blocks else (),
        huge_sizes=_huge_sizes(root),
    )


def read_low_blocks(root: Root) -> tuple[Outlook, ...]:
    """Return the memory blocks below 4 GiB, by a look at each of their pages.

    Raises MachineError for a file that cannot be read.
    """
    low = (block for block in read_blocks(root) if block.start < _LOW_END)
    return tuple(outlooks(root, low))


def load_page_readers() -> None:
    """Load what looks at pages: that takes longer than a look, and a device would wait for it."""
    import zoned.kernel.block_pages  # noqa: F401


def _ram(resources: tuple[Resource, ...]) -> tuple[Span, ...]:
    """Return system memory that was there at boot: drivers name what they add themselves."""
    return tuple(
        Span(each.start, each.end - each.start + 1)
        for each in resources
        if each.name == _RAM and not each.above
    )


def _claimed(root: Root, resources: tuple[Resource, ...]) -> tuple[Span, ...]:
    """Return what in that memory has a name: the kernel's own text and data, the crash kernel."""
    initrd = read_initrd(root)
    inside = [
        Span(each.start, each.end - each.start + 1)
        for each in resources
        if each.above[:1] == (_RAM,)
    ]
    return (*inside, *((initrd,) if initrd else ()))


def _huge_sizes(root: Root) -> tuple[int, ...]:
    found = numbered(root.sys / "kernel/mm/hugepages", _HUGE)
    return tuple(sorted(kib * 1024 for kib in found))
