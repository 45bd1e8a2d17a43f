# SPDX-License-Identifier: Apache-2.0
"""The ladder: the ways in which memory that a device can reach may be had, best first."""

from __future__ import annotations

from enum import StrEnum


class Rung(StrEnum):
    """One way. The members are in the order in which they are tried."""

    IOMMU = "iommu"
    DEVDAX = "devdax"
    CMA = "cma"
    LOWMEM = "lowmem"
    BLOCKS = "blocks"
    HUGETLB = "hugetlb"
    PENDING_REBOOT = "pending-reboot"

    @property
    def what(self) -> str:
        """What it is."""
        return _TEXTS[self][0]

    @property
    def promises(self) -> str:
        """What one can rely on where this rung holds."""
        return _TEXTS[self][1]

    @property
    def cannot_promise(self) -> str:
        """What one cannot rely on all the same."""
        return _TEXTS[self][2]


_TEXTS = {
    Rung.IOMMU: (
        "The IOMMU translates the device's addresses, so nothing is reserved.",
        "Any memory will do: it appears to the device at an address that it can reach.",
        "That it stays so: at the next boot the IOMMU may let addresses through, or be off.",
    ),
    Rung.DEVDAX: (
        "A device-dax region below the limit, set aside at boot (memmap=SIZE!BASE).",
        "Fixed addresses, contiguous, never used by anybody else, and safe to pin.",
        "Memory for kernel drivers: their allocations do not come from there.",
    ),
    Rung.CMA: (
        "An area of the kernel's contiguous memory allocator (CMA) below the limit.",
        "The kernel moves other pages out of it when a driver asks for contiguous memory.",
        "Single pages, which do not come from it; that other drivers take nothing from it; and "
        "that a driver gets its memory while a page in the area is pinned.",
    ),
    Rung.LOWMEM: (
        "Free memory of the kernel's low zone, kept from ordinary allocations "
        "(vm.lowmem_reserve_ratio).",
        "Allocations that could come from elsewhere leave so much of the low zone free.",
        "Particular addresses: the zone ends where the kernel says, not at the device's limit. "
        "Other devices that ask for low memory get it, too. It is no use to programs.",
    ),
    Rung.BLOCKS: (
        "Memory blocks below the limit, held offline until the device appears and given to the "
        "kernel then; blocks between the limit and 4 GiB are made movable.",
        "The blocks are free when the device appears, and what the kernel allocates low lies "
        "below the limit as far as the blocks above it could be made movable.",
        "That the device's driver gets these pages and no other: once online they are anybody's "
        "low memory, and they do not leave the kernel again.",
    ),
    Rung.HUGETLB: (
        "Huge pages in a memory block below the limit, for programs that drive the device.",
        "Each page's address was looked up, and lies below the limit.",
        "That pages stay: they move when their block goes offline. Memory for kernel drivers.",
    ),
    Rung.PENDING_REBOOT: (
        "Not possible now: words for the kernel's command line that make it so at the next boot.",
        "Nothing before the next boot; after it, what `devdax` does.",
        "That the words fit after the machine's memory, firmware or initial ramdisk has changed.",
    ),
}
