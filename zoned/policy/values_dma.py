# SPDX-License-Identifier: Apache-2.0
"""What may stand behind the keys of the section `dma`, as `zoned.policy.values` is for the others.

Each function takes the plain value from the file and returns the model's, or raises BadInput.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.errors import BadInput, BadName
from zoned.model.dma.limit import MOST_BITS, bits_mask
from zoned.model.dma.rung import Rung
from zoned.model.zone import is_name
from zoned.policy.problem import shown
from zoned.policy.values import user

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_BITS = 12
"""of a page: no device reaches less"""
MOST_PRIORITY = 100
_LONGEST = 256

_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_PAIR = re.compile(r"[0-9a-f]{4}:([0-9a-f]{4}|\*)")
_CLASS = re.compile(r"[0-9a-f]{2}([0-9a-f]{2}){0,2}")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_GLOB = re.compile(r"[!-~]{1,256}")


def limit(value: object) -> int:
    """Return the highest address that a device can reach, from bits or from that address."""
    hint = f"write bits ({LEAST_BITS} to {MOST_BITS}), or the highest address, like 0x7fffffff"
    if isinstance(value, int) and not isinstance(value, bool):
        if LEAST_BITS <= value <= MOST_BITS:
            return bits_mask(value)
        raise BadInput(f"{shown(value)} is no number of address bits", hint=hint)
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise BadInput(f"{shown(value)} is no limit", hint=hint)
    mask = int(value, 16)
    if mask < bits_mask(LEAST_BITS):
        raise BadInput(f"below {shown(value)} there is not even a page", hint=hint)
    return mask


def limit_text(text: str) -> int:
    """Return a limit that was typed, as `limit` does of one in a file."""
    # A file's numbers are numbers.
    is_bits = text.isascii() and text.isdigit() and len(text) < 4
    return limit(int(text) if is_bits else text)


def pairs(value: object) -> tuple[str, ...]:
    """Return vendors and devices: ``1028:000a``, ``1028:*``, or a list of them."""
    return _each(value, _PAIR, "no vendor and device", "write it like 1028:000a or 1028:*")


def classes(value: object) -> tuple[str, ...]:
    """Return the first digits of classes: ``01``, ``0104``, ``0x010400``, or a list of them."""
    return _each(value, _CLASS, "no class", "write two, four or six digits, like 0104", _digits)


def drivers(value: object) -> tuple[str, ...]:
    """Return names of drivers: one, or a list."""
    return _each(value, _WORD, "no driver's name", "write it like aacraid", str)


def globs(value: object) -> tuple[str, ...]:
    """Return patterns with ``*``, ``?`` and ``[…]``: one, or a list."""
    hint = "write it like 'pci:v00001028d*'; one that begins with * needs quotes"
    return _each(value, _GLOB, "no pattern", hint, str)


def rungs(value: object) -> tuple[Rung, ...]:
    """Return the rungs that may be tried, in the ladder's order: one, or a list."""
    known = {str(rung): rung for rung in Rung}
    hint = f"write some of {', '.join(known)}"
    found = set()
    for item in _listed(value, "no rung", hint):
        if not isinstance(item, str) or item not in known:
            raise BadInput(f"{shown(item)} is no rung", hint=hint)
        found.add(known[item])
    return tuple(rung for rung in Rung if rung in found)


def priority(value: object) -> int:
    """Return who comes first: 0 to 100."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_PRIORITY:
        return value
    raise BadInput(f"{shown(value)} is no priority", hint=f"write a number, 0 to {MOST_PRIORITY}")


def users(value: object) -> tuple[str, ...]:
    """Return names of users or groups: one, or a list."""
    items = _listed(value, "no name", "write names, not numbers")
    return tuple(dict.fromkeys(user(item) for item in items))


def name(value: object) -> str:
    """Return the name of a reservation or a pool."""
    if not isinstance(value, str) or not is_name(value):
        raise BadName(
            f"{shown(value)} is no name for a reservation or a pool",
            hint="1 to 63 of a-z 0-9 . _ -, the first a letter or digit",
        )
    return value


def line(value: object) -> str:
    """Return a text of one line."""
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
        raise BadInput(f"{shown(value)} is no line of text", hint="write where it is known from")
    if not value.isprintable():
        raise BadInput(f"{shown(value)} is more than one line", hint="write where it is known from")
    return value


def _each(
    value: object,
    pattern: re.Pattern[str],
    wrong: str,
    hint: str,
    clean: Callable[[str], str] = str.lower,
) -> tuple[str, ...]:
    found = []
    for item in _listed(value, wrong, hint):
        # A class of which all digits are decimal is read as a number.
        is_number = isinstance(item, int) and not isinstance(item, bool)
        text = clean(str(item)) if is_number or isinstance(item, str) else ""
        if not pattern.fullmatch(text):
            raise BadInput(f"{shown(item)} is {wrong}", hint=hint)
        found.append(text)
    return tuple(dict.fromkeys(found))


def _listed(value: object, wrong: str, hint: str) -> list[object]:
    items = list(value) if isinstance(value, list) else [value]
    if not items:
        raise BadInput(f"an empty list is {wrong}", hint=hint)
    return items


def _digits(text: str) -> str:
    return text.lower().removeprefix("0x")
