# SPDX-License-Identifier: Apache-2.0
"""What zoned has touched, and what it was before. Written to disk before anything is changed.

The ledger lies in /run: a reboot resets the machine and the ledger together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoned.errors import BadList
from zoned.idset import format_ids, parse_ids
from zoned.kernel.state_file import damaged, load_json, save_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A process that zoned put into a zone."""

    pid: int
    start_time: int
    zone: str
    former: str | None
    """the cgroup it came from"""
    nodes: frozenset[int] | None = None
    """the nodes that it could use there; None is unknown"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """All that zoned has touched, as one value."""

    parent: bool = False
    """whether the group above all zones is ours"""
    groups: frozenset[str] = frozenset()
    """zones whose group is ours"""
    members: tuple[Member, ...] = ()
    units: Mapping[str, frozenset[int]] | None = None
    """unit -> the nodes it was confined to before; empty for none"""


class Ledger:
    """The ledger on disk. Each method has synced it when it returns."""

    def __init__(self, folder: Path, boot_id: str | None) -> None:
        self._path = folder / "ledger.json"
        self._boot_id = boot_id
        self._touched = self._load()

    @property
    def touched(self) -> Touched:
        return self._touched

    def parent(self, *, made: bool) -> None:
        """Record that the group above all zones is, or is no longer, ours."""
        if self._touched.parent != made:
            self._save(replace(self._touched, parent=made))

    def group_made(self, zone: str) -> None:
        """Record that a zone's group is about to be made."""
        if zone not in self._touched.groups:
            self._save(replace(self._touched, groups=self._touched.groups | {zone}))

    def group_gone(self, zone: str) -> None:
        """Record that a zone's group was removed, and with it what had been put there."""
        members = tuple(each for each in self._touched.members if each.zone != zone)
        groups = self._touched.groups - {zone}
        self._save(replace(self._touched, groups=groups, members=members))

    def members_added(self, members: Iterable[Member]) -> None:
        """Record processes that are about to be put into a zone.

        A process that is a member already keeps the record of where it first came from.
        """
        new = {_identity(each): each for each in members}
        old = {_identity(each): each for each in self._touched.members}
        for key, each in new.items():
            first = old.get(key, each)
            old[key] = replace(each, former=first.former, nodes=first.nodes)
        self._save(replace(self._touched, members=tuple(old.values())))

    def members_ended(self, members: Iterable[Member]) -> None:
        """Forget members that ended; what has one's pid now may be a member too."""
        ended = frozenset(map(_identity, members))
        if ended:
            left = (each for each in self._touched.members if _identity(each) not in ended)
            self._save(replace(self._touched, members=tuple(left)))

    def members_gone(self, pids: Iterable[int]) -> None:
        """Forget members that were put back."""
        gone = frozenset(pids)
        if any(each.pid in gone for each in self._touched.members):
            members = tuple(each for each in self._touched.members if each.pid not in gone)
            self._save(replace(self._touched, members=members))

    def unit_confined(self, unit: str, former: frozenset[int]) -> None:
        """Record a unit that is about to be confined; the first record of it stands."""
        units = dict(self._touched.units or {})
        if unit not in units:
            self._save(replace(self._touched, units={**units, unit: former}))

    def unit_lifted(self, unit: str) -> None:
        """Forget a unit."""
        units = dict(self._touched.units or {})
        if units.pop(unit, None) is not None:
            self._save(replace(self._touched, units=units))

    def _save(self, touched: Touched) -> None:
        save_json(self._path, {"boot_id": self._boot_id, **_to_json(touched)})
        self._touched = touched

    def _load(self) -> Touched:
        data = load_json(self._path)
        try:
            if data is None or data["boot_id"] != self._boot_id:
                return Touched()
            return _from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError, BadList) as error:
            raise damaged(self._path, str(error)) from error


def _identity(member: Member) -> tuple[int, int]:
    return member.pid, member.start_time


def _nodes_text(nodes: frozenset[int] | None) -> str | None:
    return None if nodes is None else format_ids(nodes)


def _to_json(touched: Touched) -> dict[str, Any]:
    return {
        "parent": touched.parent,
        "groups": sorted(touched.groups),
        "members": [
            [each.pid, each.start_time, each.zone, each.former, _nodes_text(each.nodes)]
            for each in touched.members
        ],
        "units": {unit: format_ids(nodes) for unit, nodes in (touched.units or {}).items()},
    }


def _from_json(data: dict[str, Any]) -> Touched:
    return Touched(
        parent=bool(data["parent"]),
        groups=frozenset(data["groups"]),
        members=tuple(
            Member(
                pid=int(pid),
                start_time=int(start),
                zone=zone,
                former=former,
                # Versions before 0.2 wrote no nodes.
                nodes=parse_ids(nodes[0]) if nodes and nodes[0] is not None else None,
            )
            for pid, start, zone, former, *nodes in data["members"]
        ),
        units={unit: parse_ids(nodes) for unit, nodes in data["units"].items()},
    )
