# SPDX-License-Identifier: Apache-2.0
"""Sets of node and CPU numbers in the kernel's list format, e.g. ``0-3,8``.

Source: Documentation/core-api/printk-formats.rst ("%*pbl") and numactl(8) for what people write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import BadList

if TYPE_CHECKING:
    from collections.abc import Iterable

_LARGEST = 1 << 16
_LONGEST = 1 << 14
"""Characters: a list of every second CPU of a machine with 4096 has half of that."""


def _span(part: str, text: str) -> range:
    first, dash, last = part.partition("-")
    if not _is_number(first):
        raise BadList(f"{text!r} is no list of numbers", hint="write it like 0-3,8")
    if not dash:
        last = first
    if not _is_number(last) or int(last) < int(first) or int(last) > _LARGEST:
        raise BadList(f"{text!r} is no list of numbers", hint="write it like 0-3,8")
    return range(int(first), int(last) + 1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST))


def parse_ids(text: str) -> frozenset[int]:
    """Return the numbers in the kernel's list format; an empty text is the empty set.

    Raises BadList.
    """
    text = text.strip()
    if not text:
        return frozenset()
    if len(text) > _LONGEST:
        raise BadList(f"a list of {len(text)} characters is too long", hint="write it like 0-3,8")
    return frozenset(number for part in text.split(",") for number in _span(part.strip(), text))


def format_ids(ids: Iterable[int]) -> str:
    """Return numbers in the kernel's list format, e.g. ``0-3,8``; "" for none."""
    spans: list[list[int]] = []
    for number in sorted(set(ids)):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def select_ids(text: str, known: Iterable[int]) -> frozenset[int]:
    """Return the numbers that a person's list means: ``0,2``  ``0-3``  ``all``  ``!1``.

    `known` is what ``all`` stands for and what ``!`` takes away from. Whether a number that is
    named outright is known is for the caller to judge.

    Raises BadList, also where nothing is left.
    """
    text = text.strip()
    if text == "all":
        chosen = frozenset(known)
    elif text.startswith("!"):
        chosen = frozenset(known) - parse_ids(text[1:])
    else:
        chosen = parse_ids(text)
    if not chosen:
        raise BadList(f"{text!r} names nothing", hint="write it like 0, 0,2, 0-3,6, all or !1")
    return chosen
