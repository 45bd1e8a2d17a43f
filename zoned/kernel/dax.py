# SPDX-License-Identifier: Apache-2.0
"""Device-dax regions, and the two drivers that can have one: device_dax and kmem.

Sources: Documentation/ABI/testing/sysfs-bus-dax, drivers/dax/bus.c (new_id, bind),
drivers/dax/kmem.c (its memory becomes blocks of the node `target_node`; it lets them go when all
are offline, and else keeps them until the next boot), daxctl-reconfigure-device(1).
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from zoned.errors import KernelRefused, NoSuchDax, NotAsWritten, Unsupported
from zoned.kernel.memory_block import block_size, numbered, read_block
from zoned.kernel.root import read_int, read_text, write_text
from zoned.model.base import DaxDevice, DaxMode
from zoned.model.topology import BlockState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoned.kernel.root import Root
    from zoned.model.topology import Block

_NAME = re.compile(r"dax(\d+)\.(\d+)")
_MAPPING = re.compile(r"mapping(\d+)")
_DEVDAX, _KMEM = "device_dax", "kmem"
_MODES = {_DEVDAX: DaxMode.DEVDAX, _KMEM: DaxMode.SYSTEM_RAM}
_UNPLUGGED, _PLUGGED = "unplugged", "online_movable"


def is_dax_name(name: str) -> bool:
    """Return whether a device-dax region could be called that."""
    return _NAME.fullmatch(name) is not None


def read_dax(root: Root) -> tuple[DaxDevice, ...]:
    """Return all device-dax regions by name; none without the bus.

    Raises MachineError for a file that cannot be read.
    """
    folder = root.sys / "bus/dax/devices"
    if not folder.is_dir():
        return ()
    names = [path.name for path in folder.iterdir() if is_dax_name(path.name)]
    found = (_device(folder / name) for name in sorted(names, key=_order))
    # One without a size is what new ones are made from (the region's "seed").
    return tuple(device for device in found if device.size != 0)


def find_dax(root: Root, name: str) -> DaxDevice:
    """Return one region. Raises NoSuchDax."""
    found = read_dax(root)
    for each in found:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in found) or "none"
    raise NoSuchDax(f"there is no device-dax region {name!r}", hint=f"regions: {known}")


def to_system_ram(root: Root, device: DaxDevice) -> None:
    """Have the kernel take a region as memory. Its blocks then exist, in what state
    `auto_online_blocks` says.

    Raises Unsupported without the driver, KernelRefused; the region is then as it was.
    """
    if device.mode is DaxMode.SYSTEM_RAM:
        return
    _load(root, _KMEM)
    _release(root, device)
    try:
        _claim(root, device.name, _KMEM)
    except KernelRefused:
        if device.mode is DaxMode.DEVDAX:
            _claim(root, device.name, _DEVDAX)
        raise
    # Kernels that let whole regions be plugged and unplugged may begin with one that is not.
    state = _state(root, device.name)
    if read_text(state) == _UNPLUGGED:
        write_text(state, _PLUGGED)


def to_devdax(root: Root, device: DaxDevice) -> None:
    """Have programs map a region again. All of its blocks have to be offline.

    Raises KernelRefused where one is not, or the kernel says no; NotAsWritten where the kernel
    keeps its blocks all the same.
    """
    if device.mode is DaxMode.SYSTEM_RAM:
        _refuse_online(_blocks_of(root, device))
        state = _state(root, device.name)
        if read_text(state) not in {None, _UNPLUGGED}:
            write_text(state, _UNPLUGGED)
        _release(root, device)
    left = [block.id for block in _blocks_of(root, device)]
    if left:
        raise NotAsWritten(
            f"the kernel keeps memory block {left[0]} of {device.name} until the next boot",
            hint="the kernel's log tells why",
        )
    if device.mode is not DaxMode.DEVDAX:
        _load(root, _DEVDAX)
        _claim(root, device.name, _DEVDAX)


def _order(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _device(path: Path) -> DaxDevice:
    node = read_int(path / "target_node")
    return DaxDevice(
        name=path.name,
        size=read_int(path / "size"),
        node=node if node is not None and node >= 0 else None,
        mode=_MODES.get(_driver(path) or "", DaxMode.DISABLED),
        ranges=tuple(_ranges(path)),
        align=read_int(path / "align"),
    )


def _driver(path: Path) -> str | None:
    try:
        return (path / "driver").readlink().name
    except FileNotFoundError:
        return None


def _ranges(path: Path) -> Iterator[tuple[int, int]]:
    """Yield start and size of each range; nothing where only root may know."""
    for number in sorted(numbered(path, _MAPPING)):
        start = _secret(path / f"mapping{number}/start")
        end = _secret(path / f"mapping{number}/end")
        if start is not None and end is not None:
            yield start, end - start + 1


def _secret(path: Path) -> int | None:
    return read_int(path, 16) if os.access(path, os.R_OK) else None


def _load(root: Root, driver: str) -> None:
    """Have the driver there. Raises Unsupported."""
    folder = root.sys / "bus/dax/drivers" / driver
    if folder.is_dir():
        return
    if root.live:
        # A daemon that systemd keeps from loading modules itself may ask for it.
        by_systemd = (root.run / "systemd/system").is_dir()
        ask = ["systemctl", "start", f"modprobe@{driver}.service"]
        try:
            subprocess.run(
                ask if by_systemd else ["modprobe", driver], check=False, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise Unsupported(f"cannot load the driver {driver}: {error.strerror}") from error
    if not folder.is_dir():
        raise Unsupported(f"this kernel has no driver {driver} for device-dax regions")


def _release(root: Root, device: DaxDevice) -> None:
    """Take a region from the driver that has it."""
    for driver, mode in _MODES.items():
        if mode is device.mode:
            folder = root.sys / "bus/dax/drivers" / driver
            write_text(folder / "unbind", device.name)


def _claim(root: Root, name: str, driver: str) -> None:
    """Give a region that nobody has to a driver. Raises KernelRefused."""
    drivers = root.sys / "bus/dax/drivers"
    device = root.sys / "bus/dax/devices" / name
    for other in _MODES.keys() - {driver}:
        if (drivers / other).is_dir():
            write_text(drivers / other / "remove_id", name)
    write_text(drivers / driver / "new_id", name)
    if _driver(device) != driver:
        # new_id does not tell why the driver did not want it; this does.
        write_text(drivers / driver / "bind", name)
    if _driver(device) != driver:
        raise KernelRefused(f"the driver {driver} did not take {name}")


def _state(root: Root, name: str) -> Path:
    return root.sys / "bus/dax/devices" / name / "state"


def _blocks_of(root: Root, device: DaxDevice) -> list[Block]:
    size = block_size(root)
    numbers = device.blocks(size) if size else frozenset[int]()
    found = (read_block(root, number) for number in sorted(numbers))
    return [block for block in found if block is not None]


def _refuse_online(blocks: list[Block]) -> None:
    online = [block.id for block in blocks if block.state is not BlockState.OFFLINE]
    if online:
        raise KernelRefused(
            f"memory block {online[0]} is not offline, and the kernel would keep it for good"
        )
