# SPDX-License-Identifier: Apache-2.0
"""Having the guest try its memory blocks, and what comes of what was said of them."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.lab.harness.guest import PYTHON, Guest
from tests.lab.loads import command

_ALL = 900
"""Seconds for all blocks of an emulated machine"""
_WORDS = {True: "yes", False: "no", None: "unknown"}


def blocks_command(guest: Guest, *words: object) -> list[str]:
    """Return a command of guest_programs/blocks.py."""
    return [PYTHON if word == "python3" else word for word in command(guest, "blocks", *words)]


def ask(guest: Guest, *words: object) -> Any:
    """Return what that command prints."""
    return json.loads(guest.check(blocks_command(guest, *words), timeout=_ALL))


def is_said(each: dict[str, Any]) -> str:
    """Return e.g. ``no`` for a block that was said not to go."""
    return _WORDS[each["can"]]


def counted(tried: Iterable[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return how many went, and of how many, by what was said of them."""
    found = dict.fromkeys(_WORDS.values(), (0, 0))
    for each in tried:
        went, number = found[is_said(each)]
        found[is_said(each)] = (went + (not each["offline"]["code"]), number + 1)
    return found


def able(guest: Guest) -> Counter[int]:
    """Return how many of each node's blocks are said to go: where the kernel has put its own
    differs from boot to boot, and what ran since then adds to it.
    """
    blocks = json.loads(guest.check(["zonectl", "blocks", "list", "--why", "-o", "json"]))
    return Counter(each["node"] for each in blocks if each["offline"])
