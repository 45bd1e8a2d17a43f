# SPDX-License-Identifier: Apache-2.0
"""The kernel's memory blocks, as its hotplug interface shows them.

Sources: Documentation/admin-guide/mm/memory-hotplug.rst,
Documentation/ABI/testing/sysfs-devices-memory.

A machine can have tens of thousands of blocks. So the node of a block is taken from one listing
per node, and of each block only `state` and `valid_zones` are opened.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from zoned.errors import MachineError
from zoned.kernel.root import read_int
from zoned.model.topology import Block, BlockCount, BlockState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from zoned.kernel.root import Root

_MEMORY = re.compile(r"memory(\d+)")
_NODE = re.compile(r"node(\d+)")
_STATES = {str(state): state for state in BlockState}
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})


def numbered(folder: Path, pattern: re.Pattern[str]) -> Iterator[int]:
    """Yield the numbers of the entries whose whole name matches; nothing if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if match := pattern.fullmatch(entry.name):
                    yield int(match[1])
    except (FileNotFoundError, NotADirectoryError):
        return


def block_size(root: Root) -> int | None:
    """Return the size of every memory block in bytes; None without memory hotplug.

    Raises MachineError for a file that cannot be read.
    """
    return read_int(root.sys / "devices/system/memory/block_size_bytes", base=16)


def read_blocks(root: Root) -> tuple[Block, ...]:
    """Return all memory blocks by number; none without memory hotplug.

    A block that several nodes share is given to the one with the lowest number. Nothing is
    returned where the kernel does not tell the block size: the addresses would be guesses.

    Raises MachineError for a file that cannot be read.
    """
    folder = root.sys / "devices/system/memory"
    size = block_size(root)
    if size is None:
        return ()
    numbers = sorted(numbered(folder, _MEMORY))
    nodes = _nodes_of_blocks(root)
    for number in numbers:
        if number not in nodes:
            nodes[number] = min(numbered(folder / f"memory{number}", _NODE), default=None)
    numa = _has_nodes(root)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        read = [_read_block(directory, each, size, nodes[each], numa=numa) for each in numbers]
    finally:
        os.close(directory)
    return tuple(block for block in read if block)


def read_block(root: Root, number: int) -> Block | None:
    """Return one memory block as `read_blocks` does, or None where there is none of that number.

    Raises MachineError for a file that cannot be read.
    """
    folder = root.sys / "devices/system/memory"
    size = block_size(root)
    if size is None:
        return None
    node = min(numbered(folder / f"memory{number}", _NODE), default=None)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _read_block(directory, number, size, node, numa=_has_nodes(root))
    finally:
        os.close(directory)


def count_blocks(blocks: Iterable[Block]) -> dict[int, BlockCount]:
    """Return how many blocks each node has; a node none of whose states is known is left out.

    A block on its way out (``going-offline``) and one of unknown state count in the total only.
    """
    states: dict[int, list[BlockState | None]] = {}
    for block in blocks:
        if block.node is not None:
            states.setdefault(block.node, []).append(block.state)
    return {
        node: BlockCount(
            total=len(found),
            online=found.count(BlockState.ONLINE),
            offline=found.count(BlockState.OFFLINE),
        )
        for node, found in states.items()
        if any(found)
    }


def _nodes_of_blocks(root: Root) -> dict[int, int | None]:
    folder = root.sys / "devices/system/node"
    found: dict[int, int | None] = {}
    for node in sorted(numbered(folder, _NODE)):
        for block in numbered(folder / f"node{node}", _MEMORY):
            found.setdefault(block, node)
    return found


def _has_nodes(root: Root) -> bool:
    return (root.sys / "devices/system/node").is_dir()


def _read_block(
    directory: int, number: int, size: int, node: int | None, *, numa: bool
) -> Block | None:
    state = _read_at(directory, f"memory{number}/state")
    # A block that was just plugged in is there before it has its node, and whoever asks Linux 6.1
    # for its zones then has the kernel fall over a node -1 (oops in valid_zones_show).
    asked = node is not None or not numa
    zones = _read_at(directory, f"memory{number}/valid_zones") if asked else None
    if (
        state is None
        and zones is None
        and _read_at(directory, f"memory{number}/phys_index") is None
    ):
        return None  # taken out of the machine since the folder was listed
    return Block(
        id=number,
        start=number * size,
        size=size,
        state=_STATES.get(state or ""),
        zones=tuple(zones.split()) if zones else (),
        node=node,
    )


def _read_at(directory: int, name: str) -> str | None:
    """Read as `root.read_text` does, in half the time: these are most of the files we open."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            return os.read(descriptor, 4096).decode(errors="replace").strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise MachineError(f"cannot read {name}: {error.strerror}") from error
