# SPDX-License-Identifier: Apache-2.0
"""What may stand behind the keys of a policy file, as far as it can be told without the machine.

Each function takes the plain value from the file and returns the model's, or raises BadInput.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoned.errors import BadInput, BadList, BadName, BadSize
from zoned.idset import format_ids, parse_ids
from zoned.model.policy import OnlineBy, Percent
from zoned.model.zone import Backing, check_name
from zoned.policy.problem import shown
from zoned.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PAGE = 4096
_MOST_BYTES = (1 << 63) - 1
_MOST_HUNDREDTHS = 9000
_MOST_NODES = 1 << 10
_MOST_CPUS = 1 << 13
"""the most that Linux can be built for: NODES_SHIFT, NR_CPUS"""
_LONGEST_SIZE = 40
_LONGEST_LIST = 1000
_LONGEST_NAME = 256

_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?\s*%")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_SPAN = re.compile(r"([0-9]+)\s*-\s*([0-9]+)")
_USER = re.compile(r"[^\s\x00-\x1f\x7f:,/-][^\s\x00-\x1f\x7f:,/]*")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_DEVICE = re.compile(r"(?!\.{1,2}$)[^\s/\x00-\x1f\x7f]{1,255}")
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^\s/:\x00-\x1f\x7f]{1,15}")


def size(value: object) -> int:
    """Return a zone's size in bytes: at least a page. Raises BadSize."""
    return _bytes(value, "a size", "write it like 512MiB or 64GiB")


def online_by(value: object) -> OnlineBy:
    """Return who brings memory online that is plugged in. Raises BadInput."""
    if isinstance(value, str) and value in set(OnlineBy):
        return OnlineBy(value)
    raise BadInput(f"{shown(value)} brings no memory online", hint="write kernel or zoned")


def reserve(value: object) -> int | Percent:
    """Return what is kept back of a node: bytes or a percentage of 0 to 90; 0 is nothing.

    Raises BadSize.
    """
    hint = "write it like 5% or 2GiB"
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return 0 if _is_zero(value) else _bytes(value, "a size or percentage", hint)
    hundredths = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    if hundredths > _MOST_HUNDREDTHS:
        raise BadSize(f"{shown(value)} leaves too little for zones", hint="at most 90%")
    return Percent(hundredths=hundredths)


def movable_ratio(value: object) -> float:
    """Return the most movable memory for each byte of the kernel's, 0.1 to 100. Raises BadInput."""
    hint = "write a number like 3"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{shown(value)} is no number", hint=hint)
    if not 0.1 <= value <= 100:
        raise BadInput(f"{value} is out of range", hint="0.1 to 100")
    return float(value)


def swap(value: object) -> int | None:
    """Return the most that may be swapped out: ``none`` or 0 is 0, ``max`` is None.

    Raises BadSize.
    """
    if value == "max":
        return None
    if value == "none" or _is_zero(value):
        return 0
    return _bytes(value, "an amount of swap", "write none, max, or a size like 2GiB")


def node_list(value: object) -> str:
    """Return a list of nodes as text: ``0``  ``0,2``  ``0-3``  ``all``  ``!1``, or from numbers.

    Raises BadList.
    """
    return _list(value, _MOST_NODES, "write it like 0, 0,2, 0-3,6, all, '!1' or [0, 2]")


def cpus(value: object) -> str:
    """Return ``local``, ``none`` or a list of CPUs as text. Raises BadList."""
    if isinstance(value, str) and value in {"local", "none"}:
        return value
    return _list(value, _MOST_CPUS, "write local, none, or a list like 0-3,8")


def near(value: object) -> str:
    """Return what a zone is to be close to, e.g. ``node:1`` or ``pci:0000:3b:00.0``.

    Raises BadInput.
    """
    kind, colon, what = value.partition(":") if isinstance(value, str) else ("", "", "")
    check = _NEAR.get(kind)
    if check is None or not colon:
        kinds = ", ".join(f"{name}:…" for name in _NEAR)
        raise BadInput(f"{shown(value)} is nothing to be near", hint=f"write one of {kinds}")
    return f"{kind}:{check(what)}"


def backing(value: object) -> Backing:
    """Return the backing of that name. Raises BadInput."""
    known = {str(backing): backing for backing in Backing}
    found = known.get(value) if isinstance(value, str) else None
    if found is None:
        raise BadInput(f"{shown(value)} is no backing", hint=f"write one of {', '.join(known)}")
    return found


def user(value: object) -> str:
    """Return the name of a user; whether there is one is for the machine to say.

    Raises BadName.
    """
    text = value if isinstance(value, str) else ""
    if not _USER.fullmatch(text) or text.isdigit() or len(text) > _LONGEST_NAME:
        raise BadName(f"{shown(value)} is no user's name", hint="write names, not numbers")
    return text


def zone_name(value: object) -> str:
    """Return the name if a zone may be called that. Raises BadName."""
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        raise BadName(f"{shown(value)} is no name for a zone", hint="at most 63 characters")
    return check_name(value)


def node_id(value: object) -> int:
    """Return the number of one node. Raises BadList."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise BadList(f"{shown(value)} is no node", hint="one number a line, like 0: 2GiB")
    return int(value)


def _is_zero(value: object) -> bool:
    return isinstance(value, int | str) and str(value) == "0"


def _bytes(value: object, what: str, hint: str) -> int:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not text or len(text) > _LONGEST_SIZE:
        raise BadSize(f"{shown(value)} is not {what}", hint=hint)
    try:
        found = parse_size(text)
    except BadSize as error:
        raise BadSize(error.message, hint=hint) from error
    if found < _PAGE:
        raise BadSize(f"{shown(value)} is less than a page; plain numbers are bytes", hint=hint)
    if found > _MOST_BYTES:
        raise BadSize(f"{shown(value)} is more than any machine has")
    return found


def _list(value: object, most: int, hint: str) -> str:
    text = _list_text(value)
    if text == "all":
        return text
    if len(text) > _LONGEST_LIST or sum(_widths(text)) > most:
        raise BadList(f"{shown(value)} names more than any machine has", hint=hint)
    try:
        found = parse_ids(text.removeprefix("!"))
    except BadList as error:
        raise BadList(error.message, hint=hint) from error
    if not found:
        raise BadList(f"{shown(value)} is no list", hint=hint)
    if max(found) >= most:
        raise BadList(f"no machine has a number {max(found)}", hint=f"at most {most - 1}")
    return text


def _widths(text: str) -> list[int]:
    # Judged before the list is expanded, as many wide spans would take minutes.
    return [abs(int(last) - int(first)) + 1 for first, last in _SPAN.findall(text)]


def _list_text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    items = value if isinstance(value, list) else [value]
    numbers = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
    is_list = len(numbers) == len(items) and min(numbers, default=-1) >= 0
    return format_ids(numbers) if is_list else ""


def _pattern(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise BadInput(f"{shown(text)} is not {what}")
        return text

    return check


def _pci(text: str) -> str:
    address = text.lower()
    if not _PCI.fullmatch(address):
        raise BadInput(f"{shown(text)} is no PCI address", hint="write it like 0000:3b:00.0")
    return address


_NEAR: Mapping[str, Callable[[str], str]] = {
    "cpu": _pattern(_NUMBER, "the number of a CPU"),
    "node": _pattern(_NUMBER, "the number of a node"),
    "pci": _pci,
    "netdev": _pattern(_INTERFACE, "the name of a network interface"),
    "block": _pattern(_DEVICE, "the name of a block device"),
    "zone": zone_name,
}
