# SPDX-License-Identifier: Apache-2.0
"""Services that run already: confined where they are now, and in a zone from their next start.

Their pages are charged to their own cgroup, and a charge never moves with a process; so a
running service keeps its cgroup and gets the zone's nodes there.

Source: org.freedesktop.systemd1(5), systemd.unit(5).
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, MachineError, NoSuchUnit, NotAsWritten, Unsupported
from zoned.idset import format_ids
from zoned.kernel.cgroup.escape import zone_slice
from zoned.kernel.cgroup.plan import Field
from zoned.kernel.cgroup.systemd import limit_property, unmask
from zoned.kernel.cgroup.tree import wait_until
from zoned.kernel.root import read_ids
from zoned.kernel.systemd_bus import SystemdBus

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.kernel.systemd_bus import Manager

_NAME = re.compile(r"[A-Za-z0-9:_.@\\-]+")
KINDS = {
    ".service": "Service",
    ".scope": "Scope",
    ".slice": "Slice",
    ".socket": "Socket",
    ".mount": "Mount",
    ".swap": "Swap",
}
_RUNNING = frozenset({"active", "reloading", "refreshing", "activating"})
_DROP_IN = "50-zoned.conf"
_SETTLE_SECONDS = 2.0


class SystemdUnits:
    """See UnitDriver. A name without a suffix is a service's."""

    def __init__(self, root: Root, parent: str = "zone", bus: Manager | None = None) -> None:
        self._root = root
        self._parent = parent
        self._bus = bus or SystemdBus()

    def canonical(self, unit: str) -> str:
        return self._known(unit)

    def unit_cgroup(self, unit: str) -> str:
        name = self._known(unit)
        state = self._bus.unit_property(name, "Unit", "ActiveState")
        cgroup = self._bus.unit_property(name, interface_of(name), "ControlGroup")
        if state not in _RUNNING or not cgroup:
            raise NoSuchUnit(f"unit {name} is not running", hint=f"systemctl status {name}")
        return str(cgroup)

    def unit_nodes(self, unit: str) -> frozenset[int]:
        name = self._known(unit)
        nodes = self._bus.unit_property(name, interface_of(name), "AllowedMemoryNodes")
        return unmask(bytes(nodes)) if isinstance(nodes, bytes | list) else frozenset()

    def confine_unit(self, unit: str, nodes: frozenset[int]) -> None:
        name = self._known(unit)
        file = self._root.cgroup / self.unit_cgroup(name).lstrip("/") / "cpuset.mems"
        if nodes:
            self._set_nodes(name, nodes, file)
        else:
            self._lift_nodes(name, file)

    def _set_nodes(self, name: str, nodes: frozenset[int], file: Path) -> None:
        self._bus.set_unit_properties(name, [limit_property(Field.MEMS, nodes)])
        if not wait_until(lambda: read_ids(file) == nodes, _SETTLE_SECONDS):
            raise NotAsWritten(
                f"{file} is {format_ids(read_ids(file) or ())!r} instead of {format_ids(nodes)!r}"
            )

    def _lift_nodes(self, name: str, file: Path) -> None:
        """Free a unit. The kernel empties cpuset.mems only of groups without processes, and
        systemd tries that in vain; so a running unit gets all nodes first.
        """
        if read_ids(file):
            every = read_ids(self._root.cgroup / "cpuset.mems.effective") or frozenset()
            self._set_nodes(name, every, file)
        self._bus.set_unit_properties(name, [limit_property(Field.MEMS, None)])
        # What SetUnitProperties wrote down for the next start says nothing any more.
        folder = self._root.run / "systemd/system.control" / f"{name}.d"
        with suppress(OSError):
            (folder / "50-AllowedMemoryNodes.conf").unlink()
            folder.rmdir()

    def place_unit(self, unit: str, zone: str) -> None:
        name = self._known(unit)
        if not name.endswith(".service"):
            raise Unsupported(f"{name} is no service: only those can be given another slice")
        slice_name = zone_slice(self._parent, zone)
        _write_drop_in(self._drop_in(name), f"[Service]\nSlice={slice_name}\n")
        self._bus.reload()
        found = self._bus.unit_property(name, "Service", "Slice")
        if found != slice_name:
            self.unplace_unit(name)
            raise NotAsWritten(
                f"{name} has Slice={found} instead of {slice_name}",
                hint=f"systemctl cat {name} shows who sets it",
            )

    def unplace_unit(self, unit: str) -> None:
        drop_in = self._drop_in(self._canonical(unit) or _full_name(unit))
        if not drop_in.exists():
            return
        try:
            drop_in.unlink()
            if not any(drop_in.parent.iterdir()):
                drop_in.parent.rmdir()
        except OSError as error:
            raise MachineError(f"cannot remove {drop_in}: {error.strerror}") from error
        self._bus.reload()

    def _drop_in(self, unit: str) -> Path:
        return self._root.run / "systemd/system" / f"{unit}.d" / _DROP_IN

    def _canonical(self, unit: str) -> str | None:
        """Return the unit's own name behind an alias, None where it is not loaded."""
        name = self._bus.unit_property(_full_name(unit), "Unit", "Id")
        return None if name is None else str(name)

    def _known(self, unit: str) -> str:
        name = self._canonical(unit)
        if name is None:
            raise NoSuchUnit(f"there is no unit {_full_name(unit)}", hint="systemctl list-units")
        return name


def _full_name(unit: str) -> str:
    if not _NAME.fullmatch(unit):
        raise NoSuchUnit(f"{unit!r} is no name for a unit")
    return unit if unit.endswith(tuple(KINDS)) else f"{unit}.service"


def interface_of(unit: str) -> str:
    """Return the D-Bus interface of the unit's kind, e.g. ``Service``."""
    return KINDS["." + unit.rpartition(".")[2]]


def _write_drop_in(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise KernelRefused(f"cannot write {path}: {error.strerror}") from error
