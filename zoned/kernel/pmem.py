# SPDX-License-Identifier: Apache-2.0
"""Persistent memory that no driver has yet, as it is at boot: device-dax regions may come of it.

Sources: proc_iomem(5), Documentation/admin-guide/kernel-parameters.txt (`memmap=nn!ss`),
include/linux/ioport.h and arch/x86/kernel/e820.c (the names), drivers/nvdimm/pmem.c and
drivers/dax/device.c (who has a range stands below it, by the name of its device).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.kernel.attribute import attribute
from zoned.kernel.iomem import read_iomem
from zoned.kernel.memparse import AMOUNT, amount
from zoned.model.dma.offer import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.kernel.iomem import Resource
    from zoned.kernel.root import Root

_SET_ASIDE = re.compile(rf"{AMOUNT}!{AMOUNT}")
_NAMES = ("Persistent Memory", "Persistent Memory (legacy)")


def pmem_of(resources: Iterable[Resource]) -> tuple[Span, ...]:
    """Return all ranges, whoever has them."""
    return tuple(
        Span(each.start, each.end - each.start + 1)
        for each in resources
        if each.name in _NAMES and not each.above
    )


def set_aside_at_boot(root: Root, resources: Iterable[Resource]) -> tuple[Span, ...]:
    """Return those of the ranges that words on the command line of this boot made, as they were
    said: what lies in them was ordinary memory.
    """
    words = (attribute(root.proc / "cmdline") or "").split()
    lists = [word.removeprefix("memmap=") for word in words if word.startswith("memmap=")]
    parts = [part for each in lists for part in each.split(",")]
    matches = [match for part in parts if (match := _SET_ASIDE.fullmatch(part))]
    said = {Span(amount(*match.group(3, 4)), amount(*match.group(1, 2))) for match in matches}
    return tuple(span for span in pmem_of(resources) if span in said)


def read_idle_pmem(root: Root) -> tuple[Span, ...]:
    """Return the ranges in which nothing is; none where only root may know.

    Raises MachineError where they cannot be read.
    """
    resources = read_iomem(root) or ()
    used = {each.start for each in resources if each.above[:1] and each.above[0] in _NAMES}
    return tuple(
        span
        for span in pmem_of(resources)
        if not any(span.start <= start < span.end for start in used)
    )
