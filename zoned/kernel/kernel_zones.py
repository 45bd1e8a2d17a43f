# SPDX-License-Identifier: Apache-2.0
"""The kernel's own zones, and what it keeps ordinary allocations from.

Sources: mm/vmstat.c (zoneinfo_show_print), Documentation/admin-guide/sysctl/vm.rst
(`lowmem_reserve_ratio`).
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from zoned.kernel.attribute import attribute
from zoned.model.dma.offer import KernelZone

if TYPE_CHECKING:
    from zoned.kernel.root import Root

_PAGE = 4096
_ZONE = re.compile(r"^Node +(\d+), +zone +(\S+)$", re.MULTILINE)
_NUMBER = re.compile(
    r"^ +(?:pages )?(free|spanned|present|managed|cma|nr_free_cma|start_pfn):? +(\d+)$",
    re.MULTILINE,
)
_PROTECTION = re.compile(r"^ +protection: \(([\d, ]*)\)$", re.MULTILINE)
_DEVICE = "Device"
"""Memory of devices' own, which nobody allocates."""


def read_kernel_zones(root: Root) -> tuple[KernelZone, ...] | None:
    """Return the zones of all nodes, low ones first on each; None where they cannot be read."""
    text = attribute(root.proc / "zoneinfo")
    if text is None:
        return None
    # Text before the first zone, then node, name and text of each.
    _, *parts = _ZONE.split(text)
    found = [
        _zone(int(node), name, numbers)
        for node, name, numbers in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        if name != _DEVICE
    ]
    return tuple(
        dataclasses.replace(zone, covered=_is_covered(zone, found[index + 1 :]))
        for index, zone in enumerate(found)
    )


def read_ratio(root: Root) -> tuple[int, ...] | None:
    """Return `vm.lowmem_reserve_ratio`, one number for each zone from the lowest on.

    None where the kernel has no such setting, or only one zone to speak of.
    """
    words = (attribute(root.proc / "sys/vm/lowmem_reserve_ratio") or "").split()
    return tuple(int(word) for word in words if word.isdigit()) or None


def _zone(node: int, name: str, text: str) -> KernelZone:
    size = {key: int(number) * _PAGE for key, number in _NUMBER.findall(text)}
    return KernelZone(
        node=node,
        name=name,
        start=size.get("start_pfn"),
        spanned=size.get("spanned", 0),
        present=size.get("present", 0),
        managed=size.get("managed", 0),
        free=size.get("free", 0),
        cma=size.get("cma", 0),
        free_cma=size.get("nr_free_cma", 0),
        protection=_protection(text),
    )


def _protection(text: str) -> tuple[int, ...]:
    found = _PROTECTION.search(text)
    return tuple(int(pages) * _PAGE for pages in re.findall(r"\d+", found[1])) if found else ()


def _is_covered(zone: KernelZone, higher: list[KernelZone]) -> bool:
    return any(other.managed for other in higher if other.node == zone.node)
