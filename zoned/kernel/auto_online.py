# SPDX-License-Identifier: Apache-2.0
"""What the kernel does with memory that is plugged in.

Source: Documentation/admin-guide/mm/memory-hotplug.rst (auto_online_blocks,
memhp_default_state).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.errors import NotAsWritten
from zoned.kernel.root import read_text, write_text
from zoned.model.block import BlockWord

if TYPE_CHECKING:
    from pathlib import Path

    from zoned.kernel.root import Root


def _path(root: Root) -> Path:
    return root.sys / "devices/system/memory/auto_online_blocks"


def read_auto_online(root: Root) -> BlockWord | None:
    """Return the state that new blocks get by themselves; None without memory hotplug.

    Raises MachineError where the file cannot be read.
    """
    text = read_text(_path(root))
    return BlockWord(text) if text in set(BlockWord) else None


def write_auto_online(root: Root, word: BlockWord) -> None:
    """Have new blocks get a state. Raises KernelRefused, NotAsWritten."""
    write_text(_path(root), word.value)
    found = read_auto_online(root)
    if found is not word:
        raise NotAsWritten(f"auto_online_blocks reads {found} after {word} was written to it")
