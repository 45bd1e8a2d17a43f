# SPDX-License-Identifier: Apache-2.0
"""A kernel and a systemd made of files: they refuse, round and answer as the real ones do."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, ServiceManager
from zoned.idset import parse_ids
from zoned.kernel.cgroup.files import PAGE
from zoned.kernel.cgroup.tree import CgroupFs, children, leaves_first, own_pids, pids_in
from zoned.kernel.root import Root
from zoned.kernel.systemd_bus import (
    NO_SUCH_UNIT,
    PROPERTY_READ_ONLY,
    UNIT_EXISTS,
    Property,
    Refusal,
    UnitStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MIB = 1 << 20

_FILES = {
    "cgroup": {"procs": "", "subtree_control": "", "freeze": "0", "kill": ""},
    "memory": {
        "max": "max",
        "high": "max",
        "min": "0",
        "low": "0",
        "swap.max": "max",
        "current": "0",
        "reclaim": "",
    },
    "cpuset": {
        "cpus": "",
        "mems": "",
        "cpus.effective": "",
        "mems.effective": "",
        "cpus.partition": "member",
        "cpus.exclusive": "",
    },
}


def refused(path: Path, text: str, number: int) -> KernelRefused:
    error = KernelRefused(f"echo {text!r} > {path}: {os.strerror(number)}")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


def fake_root(folder: Path) -> Root:
    """Return a root whose cgroup2 is mounted, with 4 nodes and 4 CPUs."""
    root = Root(
        sys=folder / "sys",
        proc=folder / "proc",
        cgroup=folder / "sys/fs/cgroup",
        run=folder / "run",
    )
    for each in (root.cgroup, root.proc / "self", root.run):
        each.mkdir(parents=True)
    text = f"1 0 0:1 / {root.cgroup} rw - cgroup2 cgroup2 rw\n"
    (root.proc / "self/mountinfo").write_text(text)
    return root


def add_process(root: Root, pid: int, cgroup: str = "/", *, flags: int = 0) -> None:
    folder = root.proc / str(pid)
    folder.mkdir()
    between = " ".join(["0"] * 12)
    (folder / "stat").write_text(f"{pid} (a b) S 1 1 1 0 -1 {flags} {between} 777 0 0")
    (folder / "status").write_text(f"Name:\ta b\nTgid:\t{pid}\nPid:\t{pid}\nUid:\t0\t0\t0\t0\n")
    (folder / "cgroup").write_text(f"0::{cgroup}\n")


class FakeKernel(CgroupFs):
    """cgroup v2 below `root.cgroup`. `fails` holds errnos for the next writes to a file name."""

    def __init__(self, root: Root, controllers: str = "cpuset memory pids") -> None:
        self.root = root
        self.log: list[tuple[str, str]] = []
        self.fails: dict[str, list[int]] = {}
        self.without: set[str] = set()
        mount = root.cgroup
        for name, text in {
            "cgroup.controllers": controllers,
            "cgroup.subtree_control": "",
            "cgroup.procs": "",
            "cpuset.cpus.effective": "0-3",
            "cpuset.mems.effective": "0-3",
        }.items():
            (mount / name).write_text(text)

    def make(self, folder: Path) -> bool:
        made = super().make(folder)
        if made:
            self._fill(folder)
        return made

    def _fill(self, folder: Path) -> None:
        enabled = (folder.parent / "cgroup.subtree_control").read_text().split()
        (folder / "cgroup.controllers").write_text(" ".join(enabled))
        for group in ("cgroup", *enabled):
            for name, text in _FILES.get(group, {}).items():
                path = folder / f"{group}.{name}"
                if path.name not in self.without and not path.exists():
                    path.write_text(text)
                    if name.endswith(".effective"):
                        path.write_text((folder.parent / path.name).read_text())

    def remove(self, folder: Path) -> None:
        if children(folder) or own_pids(folder):
            raise refused(folder, "rmdir", errno.EBUSY)
        if folder.exists():
            shutil.rmtree(folder)

    def write(self, path: Path, text: str) -> None:
        self.log.append((path.name, text.strip()))
        if self.fails.get(path.name):
            raise refused(path, text, self.fails[path.name].pop(0))
        if not path.exists():
            raise refused(path, text, errno.ENOENT)
        special = {
            "cgroup.subtree_control": self._control,
            "cgroup.procs": self._move,
            "cgroup.kill": self._kill,
            "memory.reclaim": self._reclaim,
            "cpuset.cpus.partition": self._partition,
        }
        if path.name in special:
            special[path.name](path, text)
        elif path.name in {"cpuset.cpus", "cpuset.mems"}:
            self._set(path, text)
        else:
            path.write_text(_rounded(text) if path.name.startswith("memory.") else text.strip())

    def _control(self, path: Path, text: str) -> None:
        now = set(path.read_text().split())
        for word in text.split():
            (now.add if word[0] == "+" else now.discard)(word[1:])
        path.write_text(" ".join(sorted(now)))
        for child in children(path.parent):
            self._fill(child)

    def _set(self, path: Path, text: str) -> None:
        if not text.strip() and path.read_text() and pids_in(path.parent):
            raise refused(path, text, errno.ENOSPC)
        path.write_text(text.strip())
        everything = (path.parent.parent / f"{path.name}.effective").read_text()
        found = parse_ids(text) <= parse_ids(everything)
        effective = text.strip() if text.strip() and found else everything
        path.with_name(f"{path.name}.effective").write_text(effective)

    def _move(self, path: Path, text: str) -> None:
        entry = self.root.proc / text / "cgroup"
        if not entry.exists():
            raise refused(path, text, errno.ESRCH)
        self._forget(int(text))
        path.write_text(" ".join([*path.read_text().split(), text]))
        entry.write_text(f"0::/{path.parent.relative_to(self.root.cgroup)}\n".replace("/.", "/"))

    def _forget(self, pid: int) -> None:
        for group in leaves_first(self.root.cgroup):
            procs = group / "cgroup.procs"
            procs.write_text(" ".join(w for w in procs.read_text().split() if w != str(pid)))

    def _kill(self, path: Path, text: str) -> None:
        assert text == "1"
        for pid in pids_in(path.parent):
            self._forget(pid)
            shutil.rmtree(self.root.proc / str(pid))

    def _reclaim(self, path: Path, text: str) -> None:
        current = path.with_name("memory.current")
        current.write_text(str(max(int(current.read_text()) - int(text), 0)))

    def _partition(self, path: Path, text: str) -> None:
        exclusive = path.with_name("cpuset.cpus.exclusive")
        valid = text == "member" or (exclusive.exists() and exclusive.read_text())
        path.write_text(text if valid else f"{text} invalid (Parent is not a partition root)")


def _rounded(text: str) -> str:
    text = text.strip()
    return str(int(text) // PAGE * PAGE) if text.isdigit() else text


class FakeManager:
    """systemd on top of a FakeKernel; only what zoned asks of it."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.units: dict[str, dict[str, object]] = {}
        self.calls: list[tuple[str, str]] = []
        self.has_oom_policy = True
        self.write: Callable[[Path, str], None] = kernel.write
        kernel.write(kernel.root.cgroup / "cgroup.subtree_control", "+memory")
        self._add("system.slice", {})

    def folder(self, unit: str) -> Path:
        if unit.endswith(".slice"):
            above, dash, _ = unit.removesuffix(".slice").rpartition("-")
            parent = self.folder(f"{above}.slice") if dash else self.kernel.root.cgroup
        else:
            parent = self.folder(str(self.units[unit]["Slice"]))
        return parent / unit

    def _add(self, unit: str, properties: dict[str, object]) -> None:
        self.units[unit] = {"ActiveState": "active", "LoadState": "loaded", **properties}
        folder = self.folder(unit)
        if folder.parent.name not in self.units and folder.parent != self.kernel.root.cgroup:
            self._add(folder.parent.name, {})
        self.kernel.make(folder)
        self.units[unit]["ControlGroup"] = f"/{folder.relative_to(self.kernel.root.cgroup)}"

    def add_service(self, unit: str, zone_slice: str, pid: int) -> None:
        self._add(unit, {"Slice": zone_slice, "Id": unit})
        self.write(self.folder(unit) / "cgroup.procs", str(pid))

    def start_transient_unit(self, unit: str, properties: Sequence[Property]) -> None:
        self.calls.append(("start_transient_unit", unit))
        values = {name: value for name, (_, value) in properties}
        if unit in self.units:
            raise _refusal(UNIT_EXISTS)
        if "OOMPolicy" in values and not self.has_oom_policy:
            raise _refusal(PROPERTY_READ_ONLY)
        self._add(unit, values)
        self._realize(unit, properties)
        pids = values.get("PIDs", [])
        assert isinstance(pids, list)
        for pid in pids:
            self.write(self.folder(unit) / "cgroup.procs", str(pid))

    def start_unit(self, unit: str) -> None:
        self.calls.append(("start_unit", unit))
        self._add(unit, self.units.get(unit, {}) | {"ActiveState": "active"})

    def stop_unit(self, unit: str, mode: str = "fail") -> None:
        self.calls.append(("stop_unit", f"{unit} {mode}"))
        for name in [name for name, got in self.units.items() if got.get("Slice") == unit]:
            del self.units[name]
        for group in leaves_first(self.folder(unit)):
            self.kernel.remove(group)
        del self.units[unit]

    def set_unit_properties(self, unit: str, properties: Sequence[Property]) -> None:
        self.calls.append(("set_unit_properties", f"{unit} {properties[0][0]}"))
        self._realize(unit, properties)

    def _realize(self, unit: str, properties: Sequence[Property]) -> None:
        names = {
            "MemoryMax": "memory.max",
            "MemoryHigh": "memory.high",
            "MemoryMin": "memory.min",
            "MemorySwapMax": "memory.swap.max",
            "AllowedCPUs": "cpuset.cpus",
            "AllowedMemoryNodes": "cpuset.mems",
        }
        for name, (_, value) in properties:
            if name not in names:
                continue
            self.units[unit][name] = value
            self._enable(self.folder(unit))
            if isinstance(value, bytes):
                bits = int.from_bytes(value, "little")
                text = ",".join(str(bit) for bit in range(64) if bits >> bit & 1)
            else:
                text = "max" if value == (1 << 64) - 1 else str(value)
            try:
                self.write(self.folder(unit) / names[name], text)
            except KernelRefused:
                # As systemd does: it logs, and goes on.
                continue

    def _enable(self, folder: Path) -> None:
        for above in reversed(folder.relative_to(self.kernel.root.cgroup).parents):
            control = self.kernel.root.cgroup / above / "cgroup.subtree_control"
            self.kernel.write(control, "+cpuset +memory")

    def unit_property(self, unit: str, interface: str, name: str) -> object | None:
        assert interface in {"Unit", "Service", "Scope", "Slice", "Socket", "Mount"}
        if unit not in self.units:
            return None
        if name == "SliceOf":
            return [each for each, got in self.units.items() if got.get("Slice") == unit]
        return self.units[unit].get(name, b"" if name == "AllowedMemoryNodes" else None)

    def attach_processes(self, unit: str, subgroup: str, pids: Sequence[int]) -> None:
        self.calls.append(("attach_processes", f"{unit} {subgroup}"))
        if not self.units[unit].get("Delegate"):
            raise _refusal("org.freedesktop.DBus.Error.InvalidArgs")
        for pid in pids:
            self.write(self.folder(unit) / subgroup.lstrip("/") / "cgroup.procs", str(pid))

    def list_units(self, patterns: Sequence[str]) -> tuple[UnitStatus, ...]:
        raise NotImplementedError(patterns)

    def reload(self) -> None:
        self.calls.append(("reload", ""))
        for drop_in in self.kernel.root.run.glob("systemd/system/*.d/50-zoned.conf"):
            line = drop_in.read_text().splitlines()[1]
            self.units[drop_in.parent.name.removesuffix(".d")]["Slice"] = line.partition("=")[2]


def _refusal(name: str) -> ServiceManager:
    error = ServiceManager(f"systemd: {name}")
    error.__cause__ = Refusal(name, name)
    return error


__all__ = ["MIB", "NO_SUCH_UNIT", "FakeKernel", "FakeManager", "add_process", "fake_root"]
