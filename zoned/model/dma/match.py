# SPDX-License-Identifier: Apache-2.0
"""Which devices a word of the policy is about, and which word counts where several are."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol, TypeVar

from zoned.errors import DmaContradiction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from zoned.model.dma.device import Device

ANY = "*"
"""Stands for any device in ``1028:*``."""

Fit = tuple[int, ...]
"""How closely a match names a device; more is closer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a device has to be. Of each key that is given, one alternative has to fit."""

    path: tuple[str, ...] = ()
    """globs on `Device.path`; ``*`` stands for slashes, too"""
    subsystem: tuple[str, ...] = ()
    """``1028:0106`` or ``1028:*``, in small letters"""
    id: tuple[str, ...] = ()
    """vendor and device, likewise"""
    modalias: tuple[str, ...] = ()
    """globs, see fnmatch(3)"""
    driver: tuple[str, ...] = ()
    class_: tuple[str, ...] = ()
    """the first two, four or six digits of the class, in small letters"""

    def fit(self, device: Device) -> Fit | None:
        """Return how closely this names the device; None where it does not.

        Fits compare key by key in the order path, subsystem, id, modalias, driver, class: what
        names a path is closer than what does not, whatever else either names. Within a key
        ``1028:000a`` is closer than ``1028:*``, and more digits of a class than fewer. A key of
        which the device's side is unknown does not fit.
        """
        fits = (
            _closest(self.path, device.path, _glob),
            _closest(self.subsystem, device.subsystem, _pair),
            _closest(self.id, device.id, _pair),
            _closest(self.modalias, device.modalias, _glob),
            _closest(self.driver, device.driver, _word),
            _closest(self.class_, device.class_text, _prefix),
        )
        return None if None in fits else tuple(each or 0 for each in fits)

    def surely_meets(self, other: Match) -> bool:
        """Return whether both name the same devices as closely: same keys, and of each the same
        alternative among others.
        """
        return all(
            set(mine) & set(theirs) if mine and theirs else mine == theirs
            for mine, theirs in zip(self.keys(), other.keys(), strict=True)
        )

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """Return the alternatives of each key, in the order in which keys count."""
        return self.path, self.subsystem, self.id, self.modalias, self.driver, self.class_


class Placed(Protocol):
    """A word of the policy."""

    @property
    def match(self) -> Match:
        """Which devices it is about."""

    @property
    def place(self) -> str:
        """``file:line``."""


Word = TypeVar("Word", bound=Placed)


def closest(
    device: Device, words: Iterable[Word], agree: Callable[[Word, Word], bool], what: str
) -> Word | None:
    """Return the word that names the device most closely; None where none does.

    Raises DmaContradiction where several name it as closely and do not `agree`.
    """
    fitting = [(fit, word) for word in words if (fit := word.match.fit(device)) is not None]
    if not fitting:
        return None
    best = max(fit for fit, _ in fitting)
    first, *others = [word for fit, word in fitting if fit == best]
    for other in others:
        if not agree(first, other):
            raise DmaContradiction(
                f"{first.place} and {other.place} name {device.address} as closely as each other,"
                f" and {what}",
                hint="remove one of them, or have one name the device more closely",
            )
    return first


def _closest(
    patterns: Sequence[str], value: str | None, judge: Callable[[str, str], int]
) -> int | None:
    """Return how closely the best pattern names the value; 0 without patterns, None for no fit."""
    if not patterns:
        return 0
    if value is None:
        return None
    return max(judge(pattern, value) for pattern in patterns) or None


def _glob(pattern: str, value: str) -> int:
    return int(fnmatchcase(value, pattern))


def _word(pattern: str, value: str) -> int:
    return int(pattern == value)


def _prefix(pattern: str, value: str) -> int:
    return len(pattern) if value.startswith(pattern) else 0


def _pair(pattern: str, value: str) -> int:
    if pattern == value:
        return 2
    vendor, _, device = pattern.partition(":")
    return int(device == ANY and value.startswith(f"{vendor}:"))
