# SPDX-License-Identifier: Apache-2.0
"""Words for the kernel's command line that set low memory aside at the next boot.

Sources: Documentation/admin-guide/kernel-parameters.txt (`memmap=nn[KMG]!ss[KMG]`, on x86: the
range becomes persistent memory, which ndctl-create-namespace(1) makes a device-dax region of);
arch/x86/kernel/e820.c (e820__update_table: ranges that touch become one), drivers/nvdimm/e820.c
(each range becomes a region, of one namespace), drivers/nvdimm/region_devs.c (resource_show).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.model.dma.limit import bits_mask, mask_text
from zoned.model.dma.offer import Span, without
from zoned.units import format_size

if TYPE_CHECKING:
    from zoned.model.dma.offer import Offer

ALIGNED = 16 << 20
"""What namespaces of persistent memory are aligned to; their label takes part of the first such
piece, so that a region is that much larger than what can be used of it."""
FIRST = 16 << 20
"""Below this the kernel has its zone DMA, and on many machines lies itself right behind it."""
KEPT = 256 << 20
"""What is left of the memory below 4 GiB: for bounce buffers and other devices, and to boot."""
_LOW = bits_mask(32)


def boot_span(mask: int, size: int, offer: Offer) -> Span | str:
    """Return what to set aside so that `size` bytes lie where a device reaches, or why nothing can
    be. Needs `offer.ram`.

    The highest place that fits, as boot loaders and kernels lay themselves low; clear of what they
    have now. It touches nothing that is pending for others, nor what was set aside before: the
    kernel would make one region of the two, and find no namespace at the second one's beginning.
    """
    if offer.x86 is False:
        return "only kernels for x86 take memmap= on their command line"
    ram = offer.ram or ()
    free = without(ram, (*offer.claimed, *map(_around, (*offer.pending, *offer.pmem))))
    wanted = -(-size // ALIGNED) * ALIGNED + ALIGNED
    places = [base for span in free if (base := _highest(span, mask, wanted)) is not None]
    if not places:
        return (
            f"no {format_size(wanted)} in one piece lie between {format_size(FIRST)} and"
            f" {mask_text(mask)} that neither kernel nor boot loader use"
        )
    found = Span(max(places), wanted)
    low = sum(span.below(_LOW) for span in without(ram, (*offer.pending, found)))
    if found.start <= _LOW and low < KEPT:
        return f"it would leave {format_size(low)} below 4GiB, and {format_size(KEPT)} have to stay"
    return found


def already_set_aside(mask: int, size: int, offer: Offer) -> Span | None:
    """Return what this boot has set aside, of which nobody has made a device-dax region yet, so
    that `size` bytes lie where a device reaches; the least that fits. None without any.
    """
    regions = [Span(*each) for region in offer.regions for each in region.ranges]
    fits = [
        span
        for span in offer.set_aside
        if without([span], (*regions, *offer.pending)) == (span,)
        and span.below(mask) >= size + ALIGNED
    ]
    return min(fits, key=lambda span: span.size, default=None)


def to_do(span: Span, *, booted: bool) -> str:
    """Return in one line what is to be done for a span."""
    if booted:
        return f"if nobody has made use of it: {afterwards(span)}"
    words = boot_words(span)
    return (
        f"add to the kernel's command line: {words}; and once after that boot: {afterwards(span)}"
    )


def boot_words(span: Span) -> str:
    """Return the words for a span, e.g. ``memmap=2064M!1008M``."""
    return f"memmap={span.size >> 20}M!{span.start >> 20}M"


def afterwards(span: Span) -> str:
    """Return the shell command that makes a device-dax region of a span, once, after that boot.

    Regions are numbered as they are found, so it looks for the one that begins there.
    """
    region = f"grep -lx {span.start:#x} /sys/bus/nd/devices/region*/resource"
    return f"ndctl create-namespace -f -m devdax -M mem -e namespace$({region} | tr -dc 0-9).0"


def _around(span: Span) -> Span:
    return Span(span.start - ALIGNED, span.size + 2 * ALIGNED)


def _highest(span: Span, mask: int, wanted: int) -> int | None:
    last = min(span.end, mask + 1) - wanted
    base = last // ALIGNED * ALIGNED
    return base if base >= max(span.start, FIRST) else None
