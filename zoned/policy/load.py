# SPDX-License-Identifier: Apache-2.0
"""All policy files that are in force, taken together as one policy.

Files are read in the order of their names. Zones add up, and so does what is said of devices; of
the system reserve, what a later file says replaces what an earlier one said, key by key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from zoned.errors import PolicyError
from zoned.model.policy import MOVABLE_RATIO, OnlineBy, Policy, SystemReserve
from zoned.policy.files import DIRECTORIES, Source, decode, in_force, read
from zoned.policy.load_dma import dma_policy
from zoned.policy.parsed import ParsedFile
from zoned.policy.problem import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from zoned.model.policy import Percent
    from zoned.policy.problem import Problem
    from zoned.policy.schema import SystemSection

T = TypeVar("T")


def load(directories: Iterable[Path] = DIRECTORIES) -> Policy:
    """Return the policy of the configuration directories, given in rising precedence.

    Raises PolicyError with every mistake in every file.
    """
    problems: list[Problem] = []
    paths = in_force(directories, problems)
    sources = [source for path in paths if (source := read(path, problems)) is not None]
    return build(sources, problems)


def load_text(text: str, name: str) -> Policy:
    """Return the policy that one file's text makes; `name` is what problems call it.

    Raises PolicyError with every mistake.
    """
    problems: list[Problem] = []
    source = decode(name, text.encode("utf-8", "surrogatepass"), problems)
    return build([source] if source else [], problems)


def build(sources: Sequence[Source], problems: list[Problem]) -> Policy:
    """Return the policy of these texts, in their order.

    `problems` is what was found wrong so far. Raises PolicyError if there is any or comes to be.
    """
    files = [file for source in sources if (file := _parse(source, problems)) is not None]
    sources_of = _sources(files, problems)
    depths = _depths(files, problems)
    dma = dma_policy(files, problems)
    if problems:
        raise PolicyError(tuple(str(one) for one in sorted(problems, key=lambda one: one.order)))
    contents = [file.content for file in files if file.content is not None]
    systems = [content.system for content in contents if content.system is not None]
    hotplug = [content.hotplug for content in contents if content.hotplug is not None]
    zones = [
        zone.spec(name) for content in contents for name, zone in (content.zones or {}).items()
    ]
    return Policy(
        zones=tuple(sorted(zones, key=lambda zone: depths[zone.name])),
        reserve=_reserve(systems),
        movable_ratio=_last(content.movable_ratio for content in systems) or MOVABLE_RATIO,
        parked={node: size for content in systems for node, size in content.parked.items()},
        online=_last(section.online for section in hotplug) or OnlineBy.KERNEL,
        movable_only=_last(section.movable_only for section in hotplug) or False,
        dma=dma,
        files=tuple(source.name for source in sources),
        sources=sources_of,
    )


def _parse(source: Source, problems: list[Problem]) -> ParsedFile | None:
    # These bring yaml and pydantic in, which is slow, and without text there is no need for them.
    from zoned.policy.document import parse

    document = parse(source, problems)
    if document is None:
        return None
    if document.data is None:
        return ParsedFile(document=document, content=None)
    from zoned.policy.schema import validate

    return ParsedFile(document=document, content=validate(document, problems))


def _sources(files: Iterable[ParsedFile], problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        for name in file.named("zones"):
            path = ("zones", name)
            if name in found:
                message = f"is defined already in {found[name]}"
                problems.append(file.problem(path, message, "rename or remove one of them"))
            else:
                found[name] = file.where(path)
    return found


def _depths(files: Sequence[ParsedFile], problems: list[Problem]) -> dict[str, int]:
    """Return how many zones must be placed before each, since it is to be near them."""
    owner = {name: file for file in files for name in file.named("zones")}
    target = {
        name: _near_zone(zone) for file in files for name, zone in file.named("zones").items()
    }
    depths: dict[str, int] = {}
    for name in target:
        chain: dict[str, None] = {}
        at: str | None = name
        while at in target and at not in depths and at not in chain:
            chain[at] = None
            at = target[at]
        if at in chain:
            message = f"goes round in a circle by way of {shown(target[at])}"
            problems.append(owner[at].problem(("zones", at, "near"), message))
        for link in reversed(chain):
            depths[link] = depths.get(target[link] or "", 0) + 1
    return depths


def _near_zone(zone: object) -> str | None:
    near = zone.get("near") if isinstance(zone, dict) else None
    return near[5:] if isinstance(near, str) and near.startswith("zone:") else None


def _reserve(systems: Iterable[SystemSection]) -> SystemReserve:
    default = SystemReserve().default
    nodes: dict[int, int | Percent] = {}
    for system in systems:
        if system.reserve is not None:
            default = system.reserve
        nodes |= system.nodes
    return SystemReserve(default=default, nodes=nodes)


def _last(values: Iterable[T | None]) -> T | None:
    """Return the last one given: what a later file says replaces what an earlier one did."""
    given = [value for value in values if value is not None]
    return given[-1] if given else None
