# SPDX-License-Identifier: Apache-2.0
"""What zoned has touched, and what it was before. Written to disk before anything is changed.

The ledger lies in /run: a reboot resets the machine and the ledger together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zoned.errors import BadList
from zoned.idset import format_ids, parse_ids
from zoned.kernel.state_file import damaged, load_json, save_json
from zoned.model.base import DaxMode, Hotplug
from zoned.model.block import BlockWord, HeldBlock
from zoned.model.dma.held import Held, Lease
from zoned.model.dma.offer import Span
from zoned.model.dma.rung import Rung

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
    units: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """unit -> the nodes it was confined to before; empty for none"""
    blocks: Mapping[int, HeldBlock] = field(default_factory=dict)
    """memory blocks that are not where they were found, or may not be"""
    fence: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """group kept off nodes -> the nodes it was confined to before; empty for none"""
    hotplug: Hotplug | None = None
    """None where new memory is not ours to bring online"""
    movable_only: frozenset[int] = frozenset()
    """nodes that are to have movable memory alone, until they leave"""
    regions: Mapping[str, DaxMode] = field(default_factory=dict)
    """device-dax regions that are becoming memory, or programs' -> what they were before"""
    reservations: Mapping[str, Held] = field(default_factory=dict)
    """memory for devices, by name"""
    leases: Mapping[int, Lease] = field(default_factory=dict)
    """buffers that programs have of it, by number"""
    dax_users: Mapping[str, int] = field(default_factory=dict)
    """device-dax region -> the user who was last given its descriptor"""
    ratio: tuple[int, ...] | None = None
    """what `vm.lowmem_reserve_ratio` was; None where it is not changed"""
    huge: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """node and page size -> huge pages that were added to its pool"""


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
        if unit not in self._touched.units:
            units = {**self._touched.units, unit: former}
            self._save(replace(self._touched, units=units))

    def unit_lifted(self, unit: str) -> None:
        """Forget a unit."""
        if unit in self._touched.units:
            units = {name: nodes for name, nodes in self._touched.units.items() if name != unit}
            self._save(replace(self._touched, units=units))

    def blocks_taken(self, blocks: Iterable[HeldBlock]) -> None:
        """Record blocks that are about to be taken, or go to another owner.

        In what state a block was first found stays on record.
        """
        held = dict(self._touched.blocks)
        for each in blocks:
            first = held.get(each.number, each)
            held[each.number] = replace(each, former=first.former)
        self._save(replace(self._touched, blocks=held))

    def blocks_returned(self, numbers: Iterable[int]) -> None:
        """Forget blocks that are as they were found."""
        gone = frozenset(numbers)
        if gone & self._touched.blocks.keys():
            held = {each: block for each, block in self._touched.blocks.items() if each not in gone}
            self._save(replace(self._touched, blocks=held))

    def fence_set(self, group: str, former: frozenset[int]) -> None:
        """Record a group that is about to be kept off nodes; the first record of it stands."""
        if group not in self._touched.fence:
            fence = {**self._touched.fence, group: former}
            self._save(replace(self._touched, fence=fence))

    def fence_lifted(self, group: str) -> None:
        """Forget a group that may use what it could before."""
        if group in self._touched.fence:
            fence = {name: nodes for name, nodes in self._touched.fence.items() if name != group}
            self._save(replace(self._touched, fence=fence))

    def hotplug_is(self, found: Hotplug | None) -> None:
        """Record what is known of memory that is plugged in; None when that is nobody's concern."""
        if self._touched.hotplug != found:
            self._save(replace(self._touched, hotplug=found))

    def movable_only_is(self, nodes: frozenset[int]) -> None:
        """Record which nodes are to have movable memory alone."""
        if self._touched.movable_only != nodes:
            self._save(replace(self._touched, movable_only=nodes))

    def regions_change(self, former: Mapping[str, DaxMode]) -> None:
        """Record regions that are about to change drivers; the first record of one stands."""
        if former.keys() - self._touched.regions.keys():
            self._save(replace(self._touched, regions={**former, **self._touched.regions}))

    def regions_settled(self, names: Iterable[str]) -> None:
        """Forget regions that are what they were to become, or what they were before."""
        gone = frozenset(names)
        if gone & self._touched.regions.keys():
            left = {name: each for name, each in self._touched.regions.items() if name not in gone}
            self._save(replace(self._touched, regions=left))

    def reserved(self, held: Held) -> None:
        """Record a reservation that is about to be set up, stands now, or is about to go."""
        if self._touched.reservations.get(held.name) != held:
            reservations = {**self._touched.reservations, held.name: held}
            self._save(replace(self._touched, reservations=reservations))

    def unreserved(self, name: str) -> None:
        """Forget a reservation that is gone."""
        if name in self._touched.reservations:
            left = {key: each for key, each in self._touched.reservations.items() if key != name}
            self._save(replace(self._touched, reservations=left))

    def leased(self, lease: Lease) -> None:
        """Record a buffer that is about to be handed out, or is to be free."""
        self._save(replace(self._touched, leases={**self._touched.leases, lease.number: lease}))

    def lease_ended(self, number: int) -> None:
        """Forget a buffer whose memory is free."""
        if number in self._touched.leases:
            left = {key: each for key, each in self._touched.leases.items() if key != number}
            self._save(replace(self._touched, leases=left))

    def dax_lent_to(self, region: str, uid: int) -> None:
        """Record a user who is about to be given a region's descriptor."""
        if self._touched.dax_users.get(region) != uid:
            users = {**self._touched.dax_users, region: uid}
            self._save(replace(self._touched, dax_users=users))

    def ratio_was(self, former: tuple[int, ...] | None) -> None:
        """Record `vm.lowmem_reserve_ratio` before it is changed, or None once it is back; the first
        record stands.
        """
        if former is None or self._touched.ratio is None:
            self._save(replace(self._touched, ratio=former))

    def huge_added(self, node: int, size: int, pages: int) -> None:
        """Record how many huge pages of `size` bytes are about to be of zoned on a node, in all."""
        huge = {**self._touched.huge, (node, size): pages}
        self._save(replace(self._touched, huge={key: each for key, each in huge.items() if each}))

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
        "units": {unit: format_ids(nodes) for unit, nodes in touched.units.items()},
        "blocks": [
            [each.number, each.owner, each.former, each.home, each.emptied, each.parked_by]
            for each in touched.blocks.values()
        ],
        "fence": {group: format_ids(nodes) for group, nodes in touched.fence.items()},
        "hotplug": _hotplug_to_json(touched.hotplug),
        "movable_only": format_ids(touched.movable_only),
        "regions": dict(touched.regions),
        "reservations": [_held_to_json(each) for each in touched.reservations.values()],
        "leases": [_lease_to_json(each) for each in touched.leases.values()],
        "dax_users": dict(touched.dax_users),
        "ratio": touched.ratio,
        "huge": [[node, size, pages] for (node, size), pages in touched.huge.items()],
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
        # Versions before 0.3 knew none of these.
        blocks={
            int(number): HeldBlock(
                number=int(number),
                owner=owner,
                former=former,
                home=home,
                # Early versions did not write these; zones keep the blocks that they have.
                emptied=bool(more[0]) if more else True,
                parked_by=str(more[1]) if len(more) > 1 else "",
            )
            for number, owner, former, home, *more in data.get("blocks", ())
        },
        fence={group: parse_ids(nodes) for group, nodes in data.get("fence", {}).items()},
        hotplug=_hotplug_from_json(data.get("hotplug")),
        movable_only=parse_ids(data.get("movable_only", "")),
        regions={str(name): DaxMode(mode) for name, mode in data.get("regions", {}).items()},
        # Nor of these.
        reservations={each["name"]: _held_from_json(each) for each in data.get("reservations", ())},
        leases={each["number"]: _lease_from_json(each) for each in data.get("leases", ())},
        dax_users={str(name): int(uid) for name, uid in data.get("dax_users", {}).items()},
        ratio=None if data.get("ratio") is None else tuple(map(int, data["ratio"])),
        huge={(int(node), int(size)): int(pages) for node, size, pages in data.get("huge", ())},
    )


def _hotplug_to_json(found: Hotplug | None) -> list[Any] | None:
    if found is None:
        return None
    ids = (format_ids(found.known), format_ids(found.raced))
    return [found.former, found.said, *ids, found.by]


def _hotplug_from_json(data: list[Any] | None) -> Hotplug | None:
    if data is None:
        return None
    former, said, known, raced, by = data
    return Hotplug(
        former=None if former is None else BlockWord(former),
        said=BlockWord(said),
        known=parse_ids(known),
        raced=parse_ids(raced),
        by=str(by),
    )


def _held_to_json(held: Held) -> dict[str, Any]:
    return {**asdict(held), "spans": _spans_to_json(held.spans)}


def _held_from_json(data: dict[str, Any]) -> Held:
    return Held(
        **{
            **data,
            "rung": Rung(data["rung"]),
            "devices": tuple(data["devices"]),
            "spans": _spans_from_json(data["spans"]),
            "blocks": tuple(data["blocks"]),
            "above": tuple(data["above"]),
        }
    )


def _lease_to_json(lease: Lease) -> dict[str, Any]:
    return {**asdict(lease), "segments": _spans_to_json(lease.segments)}


def _lease_from_json(data: dict[str, Any]) -> Lease:
    return Lease(**{**data, "segments": _spans_from_json(data["segments"])})


def _spans_to_json(spans: Iterable[Span]) -> list[list[int]]:
    return [[each.start, each.size] for each in spans]


def _spans_from_json(data: Iterable[list[int]]) -> tuple[Span, ...]:
    return tuple(Span(int(start), int(size)) for start, size in data)
