# SPDX-License-Identifier: Apache-2.0
"""Units kept off nodes: the slices, scopes and services directly below the root.

systemd is their single writer, so the node set is a property of the unit: it outlives a reload
and a restart of the unit. A group there that is no unit's is written to directly, as systemd
leaves it alone.

Source: org.freedesktop.systemd1(5), systemd.resource-control(5) (AllowedMemoryNodes=).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, NotAsWritten
from zoned.idset import format_ids
from zoned.kernel.cgroup.escape import parent_slice
from zoned.kernel.cgroup.fence import Outsider
from zoned.kernel.cgroup.fence_v2 import MEMS, FenceV2
from zoned.kernel.cgroup.marks import mark, set_mark
from zoned.kernel.cgroup.plan import Field
from zoned.kernel.cgroup.systemd import limit_property, unmask
from zoned.kernel.cgroup.tree import CgroupFs, wait_until
from zoned.kernel.cgroup.units import KINDS, interface_of
from zoned.kernel.root import read_ids
from zoned.kernel.systemd_bus import SystemdBus

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.kernel.systemd_bus import Manager

_PROPERTY = "AllowedMemoryNodes"
_DROP_IN = f"50-{_PROPERTY}.conf"
# Where SetUnitProperties writes things down until the next boot: units of files, and others.
_PLACES = ("system.control", "transient")
_SETTLE_SECONDS = 5.0

# The note on a group: whether somebody had set its nodes until the next boot before us.
_HAD = "had-drop-in"
_YES, _NO = "yes", "no"


class FenceSystemd(FenceV2):
    """See FenceDriver. Outsiders are called by their units."""

    def __init__(
        self,
        root: Root,
        parent: str = "zone",
        fs: CgroupFs | None = None,
        bus: Manager | None = None,
    ) -> None:
        super().__init__(root, parent_slice(parent), fs)
        self._bus = bus or SystemdBus()

    def _is_exempt(self, folder: Path) -> bool:
        if folder.name == "init.scope" or not folder.name.endswith((".service", ".scope")):
            return super()._is_exempt(folder)
        # A unit of its own, with what it started.
        return True

    def _look(self, folder: Path, *, holds_daemon: bool) -> Outsider:
        found = super()._look(folder, holds_daemon=holds_daemon)
        name = folder.name.removeprefix("_")
        own = self._nodes_of(name) if name.endswith(tuple(KINDS)) else None
        if own is None:
            return found
        return Outsider(
            name=name,
            own=own,
            written=found.written,
            effective=found.effective,
            holds_daemon=holds_daemon,
        )

    def _nodes_of(self, unit: str) -> frozenset[int] | None:
        """Return the unit's own nodes, empty for none; None where no such unit is loaded."""
        nodes = self._bus.unit_property(unit, interface_of(unit), _PROPERTY)
        return unmask(bytes(nodes)) if isinstance(nodes, bytes | list) else None

    def confine(self, name: str, nodes: frozenset[int]) -> None:
        if name.startswith("/"):
            super().confine(name, nodes)
            return
        folder = self._folder(name)
        if folder.is_dir() and not mark(folder, _HAD):
            set_mark(folder, _HAD, _YES if self._drop_ins(name) else _NO)
        self._set(name, nodes)

    def lift(self, name: str, former: frozenset[int]) -> None:
        if name.startswith("/"):
            super().lift(name, former)
            return
        folder = self._folder(name)
        had = mark(folder, _HAD)
        written = read_ids(folder / MEMS) or frozenset()
        own = self._nodes_of(name)
        if own is not None and (own, written) != (former, former):
            if written and not former:
                self._set(name, self.nodes())
            self._set(name, former)
        if had != _YES and not (former and not had):
            self._forget(name)
        if had:
            set_mark(folder, _HAD, "")

    def _folder(self, name: str) -> Path:
        folder = super()._folder(name)
        # systemd puts a "_" before names that the kernel could take for files of its own.
        escaped = folder.with_name(f"_{folder.name}")
        return escaped if escaped.is_dir() and not folder.is_dir() else folder

    def _set(self, unit: str, nodes: frozenset[int]) -> None:
        self._bus.set_unit_properties(unit, [limit_property(Field.MEMS, nodes)])
        file = self._folder(unit) / MEMS
        # An empty set does not reach a group with processes.
        if nodes and not wait_until(
            lambda: read_ids(file) == nodes or not file.parent.is_dir(), _SETTLE_SECONDS
        ):
            raise NotAsWritten(
                f"{file} is {format_ids(read_ids(file) or ())!r} instead of {format_ids(nodes)!r}"
            )

    def _drop_ins(self, unit: str) -> list[Path]:
        folders = (self._root.run / "systemd" / place / f"{unit}.d" for place in _PLACES)
        return [folder / _DROP_IN for folder in folders if (folder / _DROP_IN).exists()]

    def _forget(self, unit: str) -> None:
        """Remove what systemd wrote down for the unit's next start. Raises KernelRefused."""
        for file in self._drop_ins(unit):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise KernelRefused(f"cannot remove {file}: {error.strerror}") from error
            with suppress(OSError):
                file.parent.rmdir()
