# SPDX-License-Identifier: Apache-2.0
"""Memory blocks of files that can go offline and come back, and what firmware tells of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.unit.fake_sys import MEMORY, NODES, add_block, write
from zoned.errors import BlockRefused, BlockTimeout, KernelRefused
from zoned.kernel import auto_online
from zoned.kernel.memory_block import read_block
from zoned.kernel.root import sysroot
from zoned.model.block import BlockWord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from zoned.errors import ZonedError
    from zoned.kernel.root import Root

BLOCK = 128 << 20

_NORMAL = "Normal"
_MOVABLE = "Movable"


def whole_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file hold what was written last, as in sysfs, and nothing of what was there before."""

    def write_text(path: Path, text: str) -> None:
        if not path.exists():
            raise KernelRefused(f"echo {text!r} > {path}: No such file or directory")
        path.write_text(text + "\n")

    monkeypatch.setattr(auto_online, "write_text", write_text)


def srat(*pluggable: tuple[int, int], fixed: tuple[int, int] = (0, BLOCK)) -> bytes:
    """Return an SRAT of a processor, a fixed range, one switched off, and pluggable ones."""

    def memory(start: int, size: int, flags: int) -> bytes:
        return struct.pack("<BBIHQQIIQ", 1, 40, 0, 0, start, size, 0, flags, 0)

    body = struct.pack("<BB14x", 0, 16) + memory(*fixed, 1) + memory(1 << 50, BLOCK, 2)
    return b"SRAT".ljust(48, b"\0") + body + b"".join(memory(*each, 3) for each in pluggable)


@dataclass
class FakeMemory:
    """The blocks of one machine of files. `busy`: block -> errors that its next changes raise.

    `kernel`: block -> the kernel's zone that it was first in, which is not always Normal.
    """

    folder: Path
    busy: dict[int, list[ZonedError]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    on_switch: Callable[[int], None] = lambda _: None
    kernel: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write(
            self.folder,
            {f"{MEMORY}/block_size_bytes": f"{BLOCK:x}", f"{MEMORY}/auto_online_blocks": "online"},
        )

    def add(self, node: int | None, *numbers: int, zone: str | None = None) -> None:
        """Make blocks of a node, online in a zone of the kernel or offline."""
        for number in numbers:
            state = "offline" if zone is None else "online"
            if zone is not None and zone != _MOVABLE:
                self.kernel[number] = zone
            nodes = () if node is None else (node,)
            add_block(self.folder, number, state=state, zones=zone or "Normal Movable", nodes=nodes)

    def remove(self, *numbers: int) -> None:
        """Take blocks out of the machine."""
        for number in numbers:
            path = self.folder / MEMORY / f"memory{number}"
            for link in path.glob("node*"):
                (self.folder / NODES / link.name / path.name).unlink()
            for entry in path.iterdir():
                entry.unlink()
            path.rmdir()

    def tell(self, iomem: str, *pluggable: tuple[int, int]) -> None:
        """Have the firmware tell where memory is from."""
        write(self.folder, {"proc/iomem": iomem})
        path = self.folder / "sys/firmware/acpi/tables/SRAT"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(srat(*pluggable))

    def kinds(self) -> dict[int, str]:
        """Return block -> its zone of the kernel, or ``-`` for one that is offline."""
        found = {}
        for path in (self.folder / MEMORY).glob("memory*"):
            state, zones = ((path / name).read_text().strip() for name in ("state", "valid_zones"))
            found[int(path.name[6:])] = zones if state == "online" else "-"
        return dict(sorted(found.items()))

    def auto_online(self) -> str:
        """Return what new blocks do by themselves."""
        return (self.folder / MEMORY / "auto_online_blocks").read_text().strip()

    def switch(self, root: Root) -> FakeSwitch:
        """Return what stands for a BlockSwitch."""
        assert root.sys == sysroot(self.folder).sys
        return FakeSwitch(self, root)


class FakeSwitch:
    """See BlockSwitch."""

    def __init__(self, memory: FakeMemory, root: Root) -> None:
        self._memory, self._root = memory, root

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def switch(
        self,
        number: int,
        word: BlockWord,
        *,
        deadline: float,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """See BlockSwitch."""
        assert deadline > 30
        memory = self._memory
        memory.on_switch(number)
        block = read_block(self._root, number)
        assert block is not None
        if word is BlockWord.OFFLINE and block.state == "offline":
            return
        if block.state == "online" and word is not BlockWord.OFFLINE:
            if (block.zones == (_MOVABLE,)) == (word is BlockWord.MOVABLE):
                return
            zones = " ".join(block.zones)
            raise BlockRefused(f"block {number} is online as {zones}, so it cannot take {word}")
        if give_up():
            raise BlockTimeout(f"block {number} was stopped")
        if memory.busy.get(number):
            raise memory.busy[number].pop(0)
        assert (block.state == "online") == (word is BlockWord.OFFLINE), f"{word} to {block}"
        memory.done.append(f"{number} {word}")
        kernel = memory.kernel.get(number, _NORMAL)
        zones = {BlockWord.OFFLINE: f"{kernel} {_MOVABLE}", BlockWord.MOVABLE: _MOVABLE}.get(
            word, kernel
        )
        state = "offline" if word is BlockWord.OFFLINE else "online"
        path = f"{MEMORY}/memory{number}"
        write(memory.folder, {f"{path}/state": state, f"{path}/valid_zones": zones})
