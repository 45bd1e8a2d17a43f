# SPDX-License-Identifier: Apache-2.0
"""For which devices something may be wanted when they appear, in words that a udev rule can test.

The rule knows no policy. It looks whether a file is there that is called like the device, like its
identity (``0x1234:0x11e8``), its vendor (``0x1234``), or ``any``: so nothing is run for all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.model.dma.match import ANY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zoned.model.dma.match import Match
    from zoned.model.dma.wish import Wish

ANY_DEVICE = "any"

_GLOB = frozenset("*?[")


def marks(wishes: Iterable[Wish]) -> frozenset[str]:
    """Return the names of the files. They may stand for too many devices, and never for too few."""
    return frozenset(mark for wish in wishes for mark in _marks(wish.match))


def _marks(match: Match) -> set[str]:
    if match.driver:
        return set()  # It has none yet when it appears.
    if match.id:
        return {_identity(each) for each in match.id}
    names = {each.rpartition("/")[2] for each in match.path}
    if names and all(map(_is_name, names)):
        return names
    return {ANY_DEVICE}


def _is_name(text: str) -> bool:
    return bool(text.strip(".")) and not _GLOB & set(text)


def _identity(pair: str) -> str:
    """Return vendor and device as sysfs writes them."""
    vendor, _, device = pair.partition(":")
    return f"0x{vendor}" if device == ANY else f"0x{vendor}:0x{device}"
