# SPDX-License-Identifier: Apache-2.0
"""Amounts of memory as the kernel's command line has them. Source: lib/cmdline.c (memparse)."""

from __future__ import annotations

AMOUNT = r"(0x[0-9a-fA-F]+|[0-9]+)([KMGTkmgt]?)"
"""A regular expression with two groups: digits and unit."""
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def amount(digits: str | None, unit: str | None) -> int:
    """Return bytes; zero where there are no digits."""
    if digits is None:
        return 0
    return int(digits, 16 if digits[:2] == "0x" else 10) << _SHIFTS[(unit or "").upper()]
