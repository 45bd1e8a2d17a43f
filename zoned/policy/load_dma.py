# SPDX-License-Identifier: Apache-2.0
"""What all policy files together say of devices, and where they contradict each other.

Quirks and reservations of all files add up. What contradicts itself on some devices only shows
when these are there (`zoned.model.dma.match.closest`); what does so whatever the machine has is a
mistake of the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.model.dma.limit import mask_text
from zoned.model.dma.wish import DmaPolicy, Quirk, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zoned.model.dma.match import Match, Word
    from zoned.policy.parsed import ParsedFile
    from zoned.policy.problem import Path, Problem

_AGREE = ("size", "hold", "rungs", "priority", "users", "groups")
"""what reservations that share a pool have to say alike"""
_CLOSER = "remove one of them, or have one name the devices more closely"


def dma_policy(files: Sequence[ParsedFile], problems: list[Problem]) -> DmaPolicy:
    """Return what the files say of devices. Every contradiction is added to `problems`."""
    quirks = list(_quirks(files))
    wishes = list(_wishes(files))
    problems += _named_twice(files)
    problems += _same_devices(quirks, _limits_differ)
    problems += _same_devices(wishes, _two_wishes)
    problems += _pools(wishes)
    return DmaPolicy(
        quirks=tuple(quirk for quirk, *_ in quirks), wishes=tuple(wish for wish, *_ in wishes)
    )


def _quirks(files: Sequence[ParsedFile]) -> Iterator[tuple[Quirk, ParsedFile, Path]]:
    for file in files:
        section = file.content.dma if file.content else None
        for index, quirk in enumerate((section.quirks if section else None) or ()):
            path: Path = ("dma", "quirks", index)
            yield quirk.quirk(file.where(path)), file, path


def _wishes(files: Sequence[ParsedFile]) -> Iterator[tuple[Wish, ParsedFile, Path]]:
    for file in files:
        section = file.content.dma if file.content else None
        for name, wish in ((section.reservations if section else None) or {}).items():
            path: Path = ("dma", "reservations", name)
            yield wish.wish(name, file.where(path)), file, path


def _named_twice(files: Sequence[ParsedFile]) -> Iterator[Problem]:
    found: dict[str, str] = {}
    for file in files:
        for name in file.named("dma", "reservations"):
            path: Path = ("dma", "reservations", name)
            if name in found:
                message = f"is defined already in {found[name]}"
                yield file.problem(path, message, "rename or remove one of them")
            else:
                found[name] = file.where(path)


def _limits_differ(earlier: Quirk, later: Quirk) -> str:
    if earlier.limit == later.limit:
        return ""
    limits = f"{mask_text(later.limit)} here, {mask_text(earlier.limit)} there"
    return f"contradicts {earlier.place}: {limits}"


def _two_wishes(earlier: Wish, later: Wish) -> str:
    return "" if earlier.name == later.name else f"names the same devices as {earlier.place}"


def _same_devices(
    words: Sequence[tuple[Word, ParsedFile, Path]], say: Callable[[Word, Word], str]
) -> Iterator[Problem]:
    """Yield for each word what it says against one before it that names the same devices."""
    # By the alternatives of their first key, as a long list of each against each would take long.
    seen: dict[tuple[int, str], list[Word]] = {}
    for word, file, path in words:
        buckets = [seen.setdefault(key, []) for key in _firsts(word.match)]
        message = _objection(word, [each for bucket in buckets for each in bucket], say)
        if message:
            yield file.problem((*path, "match"), message, _CLOSER)
            continue
        for bucket in buckets:
            if not any(each.match == word.match for each in bucket):
                bucket.append(word)


def _objection(word: Word, rivals: Sequence[Word], say: Callable[[Word, Word], str]) -> str:
    meeting = (each for each in rivals if word.match.surely_meets(each.match))
    return next((text for each in meeting if (text := say(each, word))), "")


def _firsts(match: Match) -> list[tuple[int, str]]:
    """Return each alternative of the first key that the match has."""
    return next(
        ([(rank, each) for each in key] for rank, key in enumerate(match.keys()) if key), []
    )


def _pools(wishes: Sequence[tuple[Wish, ParsedFile, Path]]) -> Iterator[Problem]:
    first: dict[str, Wish] = {}
    pools = {wish.pool: wish.place for wish, *_ in reversed(wishes)}
    for wish, file, path in wishes:
        if wish.pool is None:
            if wish.name in pools:
                message = f"is also the name of the pool in {pools[wish.name]}"
                yield file.problem(path, message, "rename one of them")
            continue
        other = first.setdefault(wish.pool, wish)
        for key in _AGREE:
            if getattr(other, key) != getattr(wish, key):
                message = f"differs from {other.place}, which shares the pool {wish.pool}"
                yield file.problem((*path, key), message, "write the same in both")
