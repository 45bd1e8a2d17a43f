# SPDX-License-Identifier: Apache-2.0
"""Zones as slices of systemd, which is the single writer of the tree where it is PID 1.

Zone `db` is zone-db.slice below zone.slice. What systemd has a property for is set over D-Bus,
because systemd writes its own values again whenever it realises a unit; what it has none for
(cpuset.cpus.partition, memory.reclaim, cgroup.kill) is written directly. Reading is all from
cgroupfs: what the kernel has is what counts.

Source: org.freedesktop.systemd1(5), systemd.resource-control(5), CGROUP_DELEGATION.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from zoned.errors import (
    NoSuchProcess,
    NotAsWritten,
    ServiceManager,
    UnitInZone,
    Unsupported,
)
from zoned.kernel.cgroup.escape import parent_slice, zone_of_slice, zone_slice
from zoned.kernel.cgroup.files import PAGE
from zoned.kernel.cgroup.location import is_alive, is_below
from zoned.kernel.cgroup.partition import drop_exclusive
from zoned.kernel.cgroup.plan import Field, Value
from zoned.kernel.cgroup.tree import (
    CgroupFs,
    below,
    check_empty,
    children,
    pids_in,
    remove_tree,
    wait_until,
)
from zoned.kernel.cgroup.unified import NEEDED, Unified, controllers_of
from zoned.kernel.process import find
from zoned.kernel.systemd_bus import (
    PROPERTY_READ_ONLY,
    UNIT_EXISTS,
    Property,
    SystemdBus,
    refusal_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.kernel.systemd_bus import Manager
    from zoned.model.zone import Limits

logger = logging.getLogger(__name__)

PROPERTIES = {
    Field.MAX: "MemoryMax",
    Field.HIGH: "MemoryHigh",
    Field.MIN: "MemoryMin",
    Field.SWAP: "MemorySwapMax",
    Field.CPUS: "AllowedCPUs",
    Field.MEMS: "AllowedMemoryNodes",
}

_INFINITY = (1 << 64) - 1
_IDLE = frozenset({"inactive", "failed"})
_GONE_SECONDS = 5.0
_SETTLE_SECONDS = 2.0


def mask(ids: Iterable[int]) -> bytes:
    """Return a set of numbers as systemd's D-Bus properties have it: a little-endian bit mask."""
    bits = sum(1 << number for number in set(ids))
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def unmask(data: bytes) -> frozenset[int]:
    """Return the set of numbers in a bit mask of systemd's."""
    bits = int.from_bytes(data, "little")
    return frozenset(number for number in range(bits.bit_length()) if bits >> number & 1)


def limit_property(field: Field, value: Value) -> Property:
    """Return one limit as a property of a unit."""
    if field.is_set:
        return PROPERTIES[field], ("ay", mask(value if isinstance(value, frozenset) else ()))
    return PROPERTIES[field], ("t", _INFINITY if value is None else value)


class CgroupSystemd(Unified):
    """See CgroupDriver."""

    kind = "systemd"

    def __init__(
        self,
        root: Root,
        parent: str = "zone",
        fs: CgroupFs | None = None,
        bus: Manager | None = None,
    ) -> None:
        self._name = parent
        self._slice = parent_slice(parent)
        super().__init__(root, root.cgroup / self._slice, fs or CgroupFs())
        self._bus = bus or SystemdBus()
        # OOMPolicy= for scopes came with systemd 253. Where it exists its default has systemd
        # stop a whole scope when the kernel kills one process in it.
        self._scope_policy: list[Property] = [("OOMPolicy", ("s", "continue"))]

    def _unit(self, zone: str) -> str:
        return zone_slice(self._name, zone)

    def _folder(self, zone: str) -> Path:
        return self._parent / self._unit(zone)

    def _zone_in(self, folder: Path) -> str | None:
        return zone_of_slice(self._name, folder.name)

    def prepare(self) -> None:
        missing = set(NEEDED) - controllers_of(self._root.cgroup)
        if missing:
            raise Unsupported(
                f"cgroup v2 has no controller {' and '.join(sorted(missing))} here",
                hint="it may be switched off with cgroup_disable= on the kernel's command line",
            )
        if not self._parent.is_dir():
            self._start_slice(self._slice, "Derived zones of memory", [])

    def _start_slice(self, unit: str, description: str, limits: list[Property]) -> bool:
        """Make a slice and start it; False where a unit file or another unit made it already."""
        properties: list[Property] = [("Description", ("s", description)), *limits]
        try:
            self._bus.start_transient_unit(unit, properties)
        except ServiceManager as error:
            if refusal_name(error) != UNIT_EXISTS:
                raise
        else:
            return True
        if limits:
            self._bus.set_unit_properties(unit, limits)
        self._bus.start_unit(unit)
        return False

    def retire(self) -> None:
        slices = (child.suffix == ".slice" for child in children(self._parent))
        if not self._parent.is_dir() or any(slices):
            return
        if not self._busy_units(self._slice) and not pids_in(self._parent):
            self._stop_slice(self._slice, self._parent)

    def _make(self, zone: str, limits: Limits) -> bool:
        folder, unit = self._folder(zone), self._unit(zone)
        if folder.is_dir():
            return False
        wanted: dict[Field, Value] = {
            Field.MAX: limits.max,
            Field.HIGH: limits.high,
            Field.MIN: limits.min,
            Field.SWAP: limits.swap,
            Field.CPUS: limits.cpus,
            Field.MEMS: limits.mems,
        }
        set_ones = [limit_property(field, value) for field, value in wanted.items()]
        return self._start_slice(unit, f"Zone {zone}", set_ones)

    def _write(self, zone: str, field: Field, value: Value) -> None:
        self._bus.set_unit_properties(self._unit(zone), [limit_property(field, value)])

    def protect_parent(self, minimum: int) -> None:
        wanted = -(-minimum // PAGE) * PAGE
        self._bus.set_unit_properties(self._slice, [limit_property(Field.MIN, wanted)])
        if not wait_until(lambda: self.parent_protection() == wanted, _SETTLE_SECONDS):
            raise NotAsWritten(
                f"{self._slice}: MemoryMin is {self.parent_protection()} instead of {wanted}"
            )

    def _take_in(self, zone: str, pids: Sequence[int]) -> None:
        try:
            self._start_scope(pids, self._unit(zone), f"Member of zone {zone}")
        except ServiceManager as error:
            for pid in pids:
                find(self._root, pid)
            raise error from error.__cause__
        place = self._shown(self._folder(zone))
        for pid in pids:
            now = self.location(pid)
            if now is None:
                raise NoSuchProcess(f"process {pid} ended meanwhile")
            if not is_below(now, place):
                raise NotAsWritten(f"process {pid} is in {now} instead of {place}")

    def _start_scope(self, pids: Sequence[int], unit: str, description: str) -> None:
        """Put processes into a new scope in the slice `unit`."""
        started = find(self._root, pids[0]).start_time
        name = f"zoned-p{pids[0]}-{started}-{secrets.token_hex(3)}.scope"
        properties: list[Property] = [
            ("Description", ("s", description)),
            ("PIDs", ("au", list(pids))),
            ("Slice", ("s", unit)),
            # A scope whose last process failed would otherwise be listed for ever.
            ("CollectMode", ("s", "inactive-or-failed")),
        ]
        try:
            self._bus.start_transient_unit(name, [*properties, *self._scope_policy])
        except ServiceManager as error:
            if refusal_name(error) != PROPERTY_READ_ONLY or not self._scope_policy:
                raise
            self._scope_policy = []
            self._bus.start_transient_unit(name, properties)

    def release(self, pids: Sequence[int], former: str | None) -> None:
        left = [pid for pid in pids if is_alive(self._root, pid)]
        if former:
            left = self._put_back(left, former)
        left = [pid for pid in left if is_alive(self._root, pid)]
        if not left:
            return
        try:
            self._start_scope(left, "system.slice", "Released from a zone")
        except (ServiceManager, NoSuchProcess):
            still = [pid for pid in left if is_alive(self._root, pid)]
            if still == left:
                raise
            self.release(still, None)

    def _put_back(self, pids: list[int], former: str) -> list[int]:
        """Move processes into the group that they came from; return those it does not take.

        systemd itself moves processes only into units that are delegated. Into any other one
        that still runs they are written, because that is where systemd believes them to be; and
        into a group that is no unit's, which somebody else made.
        """
        unit, subgroup = _unit_in(former)
        place = below(self._root.cgroup, former)
        if place is None or former == "/" or is_below(former, self.parent):
            return pids
        if unit is not None:
            if self._bus.unit_property(unit, "Unit", "ActiveState") in {None, *_IDLE}:
                return pids
            try:
                self._bus.attach_processes(unit, subgroup, pids)
            except ServiceManager as error:
                logger.debug("%s is not delegated: %s", unit, error)
        return [pid for pid in pids if self.location(pid) != former and not self._put(place, pid)]

    def foreign_units(self, zone: str) -> tuple[str, ...]:
        return self._busy_in_zone(zone)

    def _busy_in_zone(self, zone: str) -> tuple[str, ...]:
        """Return the units that belong to the zone's slice, or still run in it.

        These are two things: a running unit that was given another slice stays where it is until
        it is restarted.
        """
        running = {unit for unit in _units_below(self._folder(zone)) if self._is_active(unit)}
        return tuple(sorted(running.union(self._busy_units(self._unit(zone)))))

    def _busy_units(self, unit: str) -> tuple[str, ...]:
        """Return the active units in a slice or below it that are neither slice nor scope."""
        found: set[str] = set()
        for member in self._units_of(unit):
            if member.endswith(".slice"):
                found.update(self._busy_units(member))
            elif not member.endswith(".scope") and self._is_active(member):
                found.add(member)
        return tuple(sorted(found))

    def _units_of(self, unit: str) -> tuple[str, ...]:
        # SliceOf came with systemd 251; a unit also requires the slice it is in.
        for name in ("SliceOf", "RequiredBy"):
            try:
                members = self._bus.unit_property(unit, "Unit", name)
            except ServiceManager as error:
                logger.debug("%s has no property %s: %s", unit, name, error)
                continue
            return tuple(map(str, members)) if isinstance(members, list) else ()
        return ()

    def _is_active(self, unit: str) -> bool:
        return self._bus.unit_property(unit, "Unit", "ActiveState") not in {None, *_IDLE}

    def kill(self, zone: str) -> None:
        super().kill(zone)
        # systemd learns of it a moment later, and until then holds the units to be running.
        wait_until(lambda: not self._busy_in_zone(zone), _GONE_SECONDS)

    def remove(self, zone: str) -> None:
        unit, folder = self._unit(zone), self._folder(zone)
        foreign = self._busy_in_zone(zone)
        if foreign:
            raise UnitInZone(
                f"{', '.join(foreign)} runs in {unit}, and would be stopped with it",
                hint="stop it, or start it in another slice",
            )
        check_empty(folder)
        drop_exclusive(self._fs, folder)
        self._stop_slice(unit, folder)
        self._lift(unit)

    def _stop_slice(self, unit: str, folder: Path) -> None:
        """Stop an empty slice, and see that its directory goes.

        Stopping kills what is in the slice. The mode "fail" has systemd refuse where something
        is just being started in it.
        """
        if self._bus.unit_property(unit, "Unit", "ActiveState") not in {None, *_IDLE}:
            self._bus.stop_unit(unit, "fail")
        if not wait_until(lambda: not folder.exists(), _GONE_SECONDS):
            # What others made in there and left behind.
            remove_tree(self._fs, folder)
        self._forget_settings(unit)

    def _forget_settings(self, unit: str) -> None:
        """Remove what SetUnitProperties left for a slice that was not ours from its beginning."""
        drop_ins = self._root.run / "systemd/system.control" / f"{unit}.d"
        for name in PROPERTIES.values():
            with suppress(OSError):
                (drop_ins / f"50-{name}.conf").unlink()
        with suppress(OSError):
            drop_ins.rmdir()

    def _lift(self, unit: str) -> None:
        """Free a slice of its limits that stays loaded because a stopped service names it."""
        if self._bus.unit_property(unit, "Unit", "LoadState") != "loaded":
            return
        unlimited = [limit_property(field, None) for field in PROPERTIES if field != Field.MIN]
        self._bus.set_unit_properties(unit, [*unlimited, limit_property(Field.MIN, 0)])


def _units_below(folder: Path) -> frozenset[str]:
    """Return the units that have a group in a slice, but for slices and scopes."""
    found: set[str] = set()
    for child in children(folder):
        if child.suffix == ".slice":
            found.update(_units_below(child))
        elif child.suffix in {".service", ".socket", ".mount", ".swap"}:
            found.add(child.name.removeprefix("_"))
    return frozenset(found)


def _unit_in(cgroup: str) -> tuple[str | None, str]:
    """Return the system's unit that owns a cgroup, and the path below it ("" for none)."""
    parts = PurePosixPath(cgroup).parts
    for at, part in enumerate(parts):
        if part.endswith((".service", ".scope")):
            rest = "/".join(parts[at + 1 :])
            # systemd puts a "_" before names that the kernel could take for files of its own.
            return part.removeprefix("_"), f"/{rest}" if rest else ""
    return None, ""
