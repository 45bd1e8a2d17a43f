# SPDX-License-Identifier: Apache-2.0
"""Device-dax regions, with a bus of files that behaves as the kernel's does."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from tests.unit.fake_memory import BLOCK, FakeMemory
from tests.unit.fake_sys import NODES, link, write
from zoned.errors import KernelRefused, NoSuchDax, NotAsWritten, Unsupported
from zoned.kernel import dax
from zoned.kernel.dax import find_dax, is_dax_name, read_dax, to_devdax, to_system_ram
from zoned.kernel.root import sysroot
from zoned.model.base import DaxDevice, DaxMode

if TYPE_CHECKING:
    from pathlib import Path

DEVICES, DRIVERS = "sys/bus/dax/devices", "sys/bus/dax/drivers"
START = 12 * BLOCK + (2 << 20)
SIZE = 4 * BLOCK - (2 << 20)


@dataclass
class Bus:
    """The dax bus. `refuses`: what a driver says to a device that is given to it."""

    folder: Path
    memory: FakeMemory
    refuses: dict[str, str] = field(default_factory=dict)
    keeps: bool = False
    """whether the kernel keeps blocks of a region that has left the driver"""
    state_file: str | None = None
    writes: list[str] = field(default_factory=list)

    def add(self, name: str, driver: str | None = "device_dax", *, size: int = SIZE) -> None:
        path = f"{DEVICES}/{name}"
        write(self.folder, {f"{path}/size": str(size), f"{path}/target_node": "2"})
        ends = {f"{path}/mapping0/start": f"{START:#x}"}
        write(self.folder, {**ends, f"{path}/mapping0/end": f"{START + size - 1:#x}"})
        if driver:
            link(self.folder, f"{path}/driver", f"../../drivers/{driver}")

    def add_driver(self, *names: str) -> None:
        for name in names:
            (self.folder / DRIVERS / name).mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, text: str) -> None:
        """Do what the kernel does when the file is written to."""
        file, owner = path.name, path.parent.name
        self.writes.append(f"{owner}/{file} {text}")
        device = self.folder / DEVICES / text
        if file == "unbind":
            (device / "driver").unlink()
            if owner == "kmem" and not self.keeps:
                self.memory.remove(13, 14, 15)
        elif file == "new_id" and owner not in self.refuses:
            self._bind(device, owner)
        elif file == "bind":
            raise KernelRefused(f"echo {text} > {path}: {self.refuses[owner]}")
        elif file == "state":
            path.write_text(text)

    def _bind(self, device: Path, driver: str) -> None:
        (device / "driver").symlink_to(f"../../drivers/{driver}")
        if driver == "kmem":
            self.memory.add(2, 13, 14, 15)
            if self.state_file:
                (device / "state").write_text(self.state_file)


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bus:
    found = Bus(tmp_path, FakeMemory(tmp_path))
    (tmp_path / NODES / "node2").mkdir(parents=True)
    found.add_driver("device_dax", "kmem")
    monkeypatch.setattr(dax, "write_text", found.write)
    return found


def device(bus: Bus, name: str = "dax0.0") -> DaxDevice:
    return find_dax(sysroot(bus.folder), name)


def test_regions_are_listed_by_number(bus: Bus) -> None:
    for name, driver in (("dax10.0", "kmem"), ("dax2.1", None), ("dax2.0", "device_dax")):
        bus.add(name, driver)
    bus.add("dax0.0", size=0)
    (bus.folder / DEVICES / "unrelated").mkdir()
    found = read_dax(sysroot(bus.folder))
    assert [(each.name, each.mode) for each in found] == [
        ("dax2.0", DaxMode.DEVDAX),
        ("dax2.1", DaxMode.DISABLED),
        ("dax10.0", DaxMode.SYSTEM_RAM),
    ]
    assert found[0] == DaxDevice(
        name="dax2.0", size=SIZE, node=2, mode=DaxMode.DEVDAX, ranges=((START, SIZE),)
    )
    assert found[0].blocks(BLOCK) == {13, 14, 15}
    write(bus.folder, {f"{DEVICES}/dax2.0/align": "2097152"})
    assert find_dax(sysroot(bus.folder), "dax2.0").align == 2 << 20


def test_machine_without_the_bus(tmp_path: Path) -> None:
    assert read_dax(sysroot(tmp_path)) == ()
    with pytest.raises(NoSuchDax, match=r"dax0\.0") as caught:
        find_dax(sysroot(tmp_path), "dax0.0")
    assert caught.value.hint == "regions: none"


def test_node_and_addresses_that_are_not_told(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.add("dax0.0")
    write(bus.folder, {f"{DEVICES}/dax0.0/target_node": "-1"})
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert device(bus).node is None
    assert device(bus).ranges == ()


@pytest.mark.parametrize("name", ["dax0.0", "dax12.3"])
def test_names(name: str) -> None:
    assert is_dax_name(name)


@pytest.mark.parametrize("name", ["4", "dax0", "dax0.0 ", "../dax0.0", "daxa.0"])
def test_no_names(name: str) -> None:
    assert not is_dax_name(name)


def test_to_memory_and_back(bus: Bus) -> None:
    bus.add("dax0.0")
    to_system_ram(sysroot(bus.folder), device(bus))
    assert device(bus).mode is DaxMode.SYSTEM_RAM
    steps = ["device_dax/unbind", "device_dax/remove_id", "kmem/new_id"]
    assert bus.writes == [f"{step} dax0.0" for step in steps]
    to_system_ram(sysroot(bus.folder), device(bus))
    assert len(bus.writes) == 3
    to_devdax(sysroot(bus.folder), device(bus))
    assert device(bus).mode is DaxMode.DEVDAX
    assert bus.memory.kinds() == {}
    to_devdax(sysroot(bus.folder), device(bus))
    steps = ["kmem/unbind", "kmem/remove_id", "device_dax/new_id"]
    assert bus.writes[3:] == [f"{step} dax0.0" for step in steps]


def test_one_that_nobody_has_can_become_either(bus: Bus) -> None:
    bus.add("dax0.0", driver=None)
    to_devdax(sysroot(bus.folder), device(bus))
    assert device(bus).mode is DaxMode.DEVDAX
    assert not any("unbind" in each for each in bus.writes)


def test_refused_region_is_as_it_was(bus: Bus) -> None:
    bus.add("dax0.0")
    bus.refuses["kmem"] = "Invalid argument"
    with pytest.raises(KernelRefused, match="Invalid argument"):
        to_system_ram(sysroot(bus.folder), device(bus))
    assert device(bus).mode is DaxMode.DEVDAX
    assert bus.writes[-1] == "device_dax/new_id dax0.0"


def test_kernel_without_the_driver(bus: Bus) -> None:
    bus.add("dax0.0")
    (bus.folder / DRIVERS / "kmem").rmdir()
    with pytest.raises(Unsupported, match="no driver kmem"):
        to_system_ram(sysroot(bus.folder), device(bus))
    assert not bus.writes


def test_block_that_is_online_keeps_it(bus: Bus) -> None:
    bus.add("dax0.0", "kmem")
    bus.memory.add(2, 13, 14)
    bus.memory.add(2, 15, zone="Movable")
    with pytest.raises(KernelRefused, match="memory block 15 is not offline"):
        to_devdax(sysroot(bus.folder), device(bus))
    assert not bus.writes


def test_kernel_that_keeps_its_blocks_is_told_of(bus: Bus) -> None:
    bus.add("dax0.0", "kmem")
    bus.memory.add(2, 13, 14, 15)
    bus.keeps = True
    with pytest.raises(NotAsWritten, match="keeps memory block 13"):
        to_devdax(sysroot(bus.folder), device(bus))
    assert device(bus).mode is DaxMode.DISABLED


@pytest.mark.parametrize("state", ["unplugged", "online"])
def test_kernel_with_whole_regions(bus: Bus, state: str) -> None:
    bus.add("dax0.0")
    bus.state_file = state
    to_system_ram(sysroot(bus.folder), device(bus))
    plugged = ["dax0.0/state online_movable"] if state == "unplugged" else []
    assert [each for each in bus.writes if "/state" in each] == plugged
    to_devdax(sysroot(bus.folder), device(bus))
    assert [each for each in bus.writes if "/state" in each] == [
        *plugged,
        "dax0.0/state unplugged",
    ]


@pytest.mark.parametrize("systemd", [True, False])
def test_driver_is_loaded_where_it_is_missing(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, *, systemd: bool
) -> None:
    bus.add("dax0.0")
    (bus.folder / DRIVERS / "kmem").rmdir()
    if systemd:
        (bus.folder / "run/systemd/system").mkdir(parents=True)
    asked = []

    def run(command: list[str], **_: object) -> None:
        asked.append(command)
        bus.add_driver("kmem")

    monkeypatch.setattr(subprocess, "run", run)
    to_system_ram(replace(sysroot(bus.folder), live=True), device(bus))
    by_systemd = ["systemctl", "start", "modprobe@kmem.service"]
    assert asked == [by_systemd if systemd else ["modprobe", "kmem"]]
    assert device(bus).mode is DaxMode.SYSTEM_RAM


def test_nothing_that_could_load_it(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.add("dax0.0")
    (bus.folder / DRIVERS / "kmem").rmdir()

    def run(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(Unsupported, match="cannot load the driver kmem"):
        to_system_ram(replace(sysroot(bus.folder), live=True), device(bus))
