# SPDX-License-Identifier: Apache-2.0
"""A kernel's zones of files: it keeps of each what `vm.lowmem_reserve_ratio` says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.unit.fake_sys import write
from zoned.errors import KernelRefused
from zoned.kernel import lowmem

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MIB, GIB = 1 << 20, 1 << 30
PAGE = 4096
RATIO = (256, 256, 32, 0, 0)
IOMEM = """\
00001000-0009ffff : System RAM
00100000-7fffffff : System RAM
  01000000-01ffffff : Kernel code
100000000-27fffffff : System RAM
"""
"""2 GiB below 4 GiB, and 6 GiB above."""


@dataclass
class FakeLowMemory:
    """Node 0 of a machine: DMA, DMA32, Normal, Movable. Sizes are bytes."""

    folder: Path
    managed: dict[str, int] = field(
        default_factory=lambda: {
            "DMA": 15 * MIB,
            "DMA32": 2 * GIB - 16 * MIB,
            "Normal": 6 * GIB,
            "Movable": 0,
        }
    )
    free: dict[str, int] = field(
        default_factory=lambda: {"DMA": 15 * MIB, "DMA32": GIB, "Normal": GIB, "Movable": 0}
    )
    cma: dict[str, tuple[int, int]] = field(default_factory=dict)
    """zone -> what areas have of it, and what of that is free"""
    ratio: tuple[int, ...] = RATIO
    refuses: str = ""
    """what it says to the next write"""
    deaf: bool = False
    """whether it takes ratios and keeps what it kept before"""
    writes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        write(self.folder, {"proc/iomem": IOMEM, "proc/sys/kernel/arch": "x86_64"})
        self.tell()

    def answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take what zoned writes."""
        monkeypatch.setattr(lowmem, "write_text", self._written)

    def set(self, *ratio: int) -> None:
        """Have somebody else write the setting."""
        self.ratio = ratio
        self.tell()

    def tell(self) -> None:
        """Write the files anew."""
        ratio, zones = " ".join(map(str, self.ratio)), "".join(map(self._zone, self.managed))
        write(self.folder, {"proc/sys/vm/lowmem_reserve_ratio": ratio, "proc/zoneinfo": zones})

    def protects(self, zone: str = "DMA32") -> int:
        """Return how much of a zone ordinary allocations leave alone."""
        return self._protection(zone)[list(self.managed).index("Normal")] * PAGE

    def _written(self, path: Path, text: str) -> None:
        assert path == self.folder / "proc/sys/vm/lowmem_reserve_ratio"
        if self.refuses:
            why, self.refuses = self.refuses, ""
            raise KernelRefused(f"echo {text!r} > {path}: {why}")
        self.writes.append(text)
        kept = self.ratio
        self.ratio = tuple(map(int, text.split()))
        self.tell()
        if self.deaf:
            self.ratio, told = kept, self.ratio
            self.tell()
            write(self.folder, {"proc/sys/vm/lowmem_reserve_ratio": " ".join(map(str, told))})

    def _protection(self, name: str) -> list[int]:
        names = [*self.managed, "Device"]
        place = names.index(name)
        ratio = self.ratio[place]
        found = []
        for other in range(len(names)):
            above = sum(self.managed.get(each, 0) for each in names[place + 1 : other + 1])
            keeps = other > place and ratio and self.managed[name]
            found.append(above // PAGE // ratio if keeps else 0)
        return found

    def _zone(self, name: str) -> str:
        starts = {"DMA": PAGE, "DMA32": 16 * MIB, "Normal": 4 * GIB, "Movable": 0}
        ends = {"DMA": 16 * MIB, "DMA32": 2 * GIB, "Normal": 10 * GIB, "Movable": 0}
        cma, free_cma = self.cma.get(name, (0, 0))
        pages = {
            "spanned": ends[name] - starts[name] if self.managed[name] else 0,
            "present": self.managed[name],
            "managed": self.managed[name],
            "cma": cma,
        }
        lines = [f"        {key:8} {size // PAGE}" for key, size in pages.items()]
        kept = ", ".join(map(str, self._protection(name)))
        return (
            f"Node 0, zone {name:>8}\n  pages free     {self.free[name] // PAGE}\n"
            + "\n".join(lines)
            + f"\n        protection: ({kept})\n      nr_free_cma  {free_cma // PAGE}\n"
            + f"  start_pfn:           {starts[name] // PAGE}\n"
        )
