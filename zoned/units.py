# SPDX-License-Identifier: Apache-2.0
"""Amounts of memory: text to bytes and back."""

from __future__ import annotations

import re

from zoned.errors import BadSize

_FACTORS = {
    "": 1,
    "B": 1,
    "K": 1 << 10,
    "KIB": 1 << 10,
    "M": 1 << 20,
    "MIB": 1 << 20,
    "G": 1 << 30,
    "GIB": 1 << 30,
    "T": 1 << 40,
    "TIB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
# Forty digits are more than any machine has, and still quick to make a number of.
_SIZE = re.compile(r"([0-9]{1,40}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]*)")


def parse_size(text: str | int) -> int:
    """Return the bytes that e.g. ``2GiB``, ``512M``, ``1.5 G`` or ``4096`` mean.

    K, M, G, T and KiB … TiB are powers of 1024, as systemd and the kernel read them; KB … TB are
    powers of 1000. The result is at least 1.

    Raises BadSize.
    """
    match = _SIZE.fullmatch(str(text).strip())
    factor = _FACTORS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise BadSize(f"{text!r} is no size", hint="write it like 512MiB, 2GiB or 4096")
    size = int(match[1]) * factor if "." not in match[1] else int(float(match[1]) * factor)
    if size == 0:
        raise BadSize(f"size {text!r} is zero", hint="a size is at least one byte")
    return size


def format_size(size: int | None) -> str:
    """Return bytes as people read them, e.g. ``1.5GiB``; exact where it is exact; None is ``-``."""
    if size is None:
        return "-"
    value, unit = float(size), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:.0f}{unit}" if value == int(value) or unit == "B" else f"{value:.1f}{unit}"
