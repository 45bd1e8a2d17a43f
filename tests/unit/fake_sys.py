# SPDX-License-Identifier: Apache-2.0
"""Small machines of files, for what no recording shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NODES = "sys/devices/system/node"
MEMORY = "sys/devices/system/memory"


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files of these contents below the folder, as the kernel does: with a newline."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def link(folder: Path, name: str, target: str) -> None:
    """Make a symbolic link below the folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def add_node(folder: Path, number: int, files: dict[str, str]) -> None:
    """Make a node with these files."""
    (folder / NODES / f"node{number}").mkdir(parents=True, exist_ok=True)
    write(folder, {f"{NODES}/node{number}/{name}": text for name, text in files.items()})


def add_block(
    folder: Path, number: int, *, state: str | None, zones: str | None, nodes: tuple[int, ...] = ()
) -> None:
    """Make a memory block and its links with nodes that exist; None leaves a file out."""
    path = f"{MEMORY}/memory{number}"
    write(folder, {f"{path}/phys_index": f"{number:08x}"})
    if state is not None:
        write(folder, {f"{path}/state": state})
    if zones is not None:
        write(folder, {f"{path}/valid_zones": zones})
    for node in nodes:
        link(folder, f"{path}/node{node}", f"../../node/node{node}")
        link(folder, f"{NODES}/node{node}/memory{number}", f"../../memory/memory{number}")
