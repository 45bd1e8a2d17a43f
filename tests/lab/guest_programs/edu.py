# SPDX-License-Identifier: Apache-2.0
"""A driver in user space for QEMU's edu device (docs/specs/edu.rst), which does real DMA.

PYTHON -m tests.lab.guest_programs.edu enable ADDRESS [USER]     let it do DMA, and USER drive it
PYTHON -m tests.lab.guest_programs.edu plain ADDRESS MASK NODE NODE     low and high memory there
PYTHON -m tests.lab.guest_programs.edu lent ADDRESS     a buffer of `zonectl dma alloc`

An address that is too long for the device loses its upper bits there: what it reads and writes is
then somebody else's memory. `plain` lets it do that only where that memory is its own as well.
"""

import ctypes
import json
import mmap
import os
import random
import shutil
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.guest_programs import memory
from tests.lab.guest_programs.memory import PAGE

MOVE = 2048
"""Bytes of one transfer. Older versions of the device end QEMU for a full buffer of 4096."""

_DEVICES = Path("/sys/bus/pci/devices")
_IDENTITY, _SOURCE, _TARGET, _COUNT, _COMMAND = 0x00, 0x80, 0x88, 0x90, 0x98
_IS_EDU, _IDENTITY_MASK = 0x000000ED, 0x000000FF
_BUFFER = 0x40000
_RUN, _TO_MEMORY = 1, 2
_PCI_COMMAND, _MEMORY_SPACE, _BUS_MASTER = 4, 2, 4  # linux/pci_regs.h
_LOOKS, _PAUSE = 3000, 0.01
"""It takes 100 ms for a transfer."""
_PRESENT = 1 << 63  # Documentation/admin-guide/mm/pagemap.rst
_FRAME = (1 << 55) - 1
_STEP, _MOST = 64 << 20, 640 << 20
"""Bytes by which ordinary memory is asked for, and how many at most on each node"""


def enable(address: str, user: str = "", *, devices: Path = _DEVICES) -> None:
    """Let the device answer and do DMA, as a driver of the kernel would; only root can.

    Its registers are given to `user`, where one is named.
    """
    with (devices / address / "config").open("r+b", buffering=0) as config:
        config.seek(_PCI_COMMAND)
        (command,) = array("H", config.read(2))
        config.seek(_PCI_COMMAND)
        config.write(array("H", [command | _MEMORY_SPACE | _BUS_MASTER]).tobytes())
    if user:
        shutil.chown(devices / address / "resource0", user)


class Edu:
    """The device at a PCI address, after `enable`.

    Physical addresses are given as they are: of one beyond the device's reach it uses the lower
    bits.
    """

    def __init__(self, address: str, *, devices: Path = _DEVICES) -> None:
        with (devices / address / "resource0").open("r+b", buffering=0) as file:
            self._registers = mmap.mmap(file.fileno(), 0)
        identity = ctypes.c_uint32.from_buffer(self._registers, _IDENTITY).value
        if identity & _IDENTITY_MASK != _IS_EDU:
            raise RuntimeError(f"{address} says {identity:#x}: no edu, or it does not answer")

    def write_to_device(self, physical: int, size: int = MOVE) -> None:
        """Have it read memory into its own buffer: at most MOVE bytes."""
        self._transfer(physical, _BUFFER, size, _RUN)

    def read_from_device(self, physical: int, size: int = MOVE) -> None:
        """Have it write its own buffer to memory: at most MOVE bytes."""
        self._transfer(_BUFFER, physical, size, _RUN | _TO_MEMORY)

    def _transfer(self, source: int, target: int, size: int, command: int) -> None:
        if not 0 < size <= MOVE:
            raise ValueError(f"{size} bytes are no transfer")
        self._await()
        for register, value in ((_SOURCE, source), (_TARGET, target), (_COUNT, size)):
            self._register(register).value = value
        self._register(_COMMAND).value = command
        self._await()

    def _register(self, offset: int) -> ctypes.c_uint64:
        # A slice of the map would be written byte by byte, which the device does not take.
        return ctypes.c_uint64.from_buffer(self._registers, offset)

    def _await(self) -> None:
        for _ in range(_LOOKS):
            if not self._register(_COMMAND).value & _RUN:
                return
            time.sleep(_PAUSE)
        raise TimeoutError(f"the device is still busy after {_LOOKS} looks")


def noise(seed: int) -> bytes:
    """Return what to fill a place with: the same for the same seed."""
    return random.Random(seed).randbytes(MOVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """MOVE bytes or more of memory at a physical address, as this program sees them."""

    physical: int
    view: memoryview

    def fill(self, content: bytes) -> None:
        """Write to it with the processor."""
        self.view[:MOVE] = content

    def has(self, content: bytes) -> bool:
        """Tell whether it holds just that."""
        return self.view[:MOVE] == content


def goes_both_ways(edu: Edu, place: Place, seed: int) -> bool:
    """Tell whether what the device reads from there and writes back there is what it was."""
    content = noise(seed)
    place.fill(content)
    edu.write_to_device(place.physical)
    place.fill(bytes(MOVE))
    edu.read_from_device(place.physical)
    return place.has(content)


def places_of(pieces: Iterable[Place]) -> Iterator[Place]:
    """Yield the first and the last place of each piece of a buffer."""
    for piece in pieces:
        for at in (0, len(piece.view) - MOVE):
            yield Place(physical=piece.physical + at, view=piece.view[at : at + MOVE])


def exchange(edu: Edu, pieces: Iterable[Place]) -> dict[str, Any]:
    """Move noise out of and into the places of a buffer, one after the other.

    At the end each must still hold its own: else two of them are the same memory.
    """
    places = list(places_of(pieces))
    both = [goes_both_ways(edu, place, seed) for seed, place in enumerate(places)]
    kept = [place.has(noise(seed)) for seed, place in enumerate(places)]
    return {
        "places": [place.physical for place in places],
        "lost": [
            place.physical for place, *well in zip(places, both, kept, strict=True) if not all(well)
        ],
    }


def frames(view: memoryview) -> list[int]:
    """Return the physical address of each page of `view`, as only root sees them."""
    start = memory.address_of(view)
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(start // PAGE * 8)
        entries = array("Q", file.read(len(view) // PAGE * 8))
    if not all(entry & _PRESENT for entry in entries):
        raise RuntimeError("not all of the memory is there")
    return [(entry & _FRAME) * PAGE for entry in entries]


class Ordinary:
    """Memory of this program on a node, got as any program gets it, by physical address."""

    def __init__(self, node: int, name: str) -> None:
        self.pages: dict[int, memoryview] = {}
        self._node = node
        self._name = name

    def grow(self, size: int = _STEP) -> None:
        """Get more of it."""
        view = memory.thp(size, self._name)
        with memory.memory_from(self._node):
            for place in range(0, size, PAGE):
                view[place] = 1
        for number, frame in enumerate(frames(view)):
            self.pages[frame] = view[number * PAGE : (number + 1) * PAGE]

    def place(self, physical: int) -> Place | None:
        """Pin the page at an address, and return it; None where it is elsewhere by then; it
        is not given again."""
        view = self.pages.pop(physical)
        memory.pin_by_pipe(view)
        return Place(physical=physical, view=view) if frames(view) == [physical] else None


def far_pair(mask: int, low: Iterable[int], high: Iterable[int]) -> tuple[int, int] | None:
    """Return a page beyond the mask, and the one that the device takes for it; None without one."""
    near = {each for each in low if each <= mask}
    for far in high:
        if far > mask and far & mask in near:
            return far, far & mask
    return None


def _gather(mask: int, low: Ordinary, high: Ordinary) -> tuple[Place, Place, Place]:
    """Get memory until there is a page far away, the one that is taken for it, and another low."""
    while len(high.pages) * PAGE < _MOST:
        low.grow()
        high.grow()
        pair = far_pair(mask, low.pages, high.pages)
        near = [each for each in low.pages if each <= mask and not (pair and each == pair[1])]
        if not pair or not near:
            continue
        places = high.place(pair[0]), low.place(pair[1]), low.place(near[0])
        # The kernel moves pages to the processors that use them, until they are pinned.
        if all(places):
            return places  # type: ignore[return-value]
    below = sum(each <= mask for each in low.pages)
    raise RuntimeError(f"no page far away goes with one of {below} within reach")


def _first(**outcomes: bool) -> str:
    """Return the name of what is true, or ``neither``."""
    return next((name for name, true in outcomes.items() if true), "neither")


def plain(edu: Edu, mask: int, low: Ordinary, high: Ordinary) -> dict[str, Any]:
    """Do DMA with memory within the device's reach, and with memory beyond it.

    `read` and `written` tell which memory the device has used for the address beyond its reach:
    that at the address (far), or that which the address without its upper bits leads to (taken).
    """
    far, taken, near = _gather(mask, low, high)
    both = goes_both_ways(edu, near, 1)

    far.fill(noise(2))
    taken.fill(noise(3))
    edu.write_to_device(far.physical)
    edu.read_from_device(near.physical)
    read = _first(far=near.has(noise(2)), taken=near.has(noise(3)))

    near.fill(noise(4))
    edu.write_to_device(near.physical)
    edu.read_from_device(far.physical)
    written = _first(far=far.has(noise(4)), taken=taken.has(noise(4)))
    return {
        "near": {"physical": near.physical, "both_ways": both},
        "far": {"physical": far.physical, "taken": taken.physical},
        "read": read,
        "written": written,
    }


def lent() -> list[Place]:
    """Map the segments of the buffer that `zonectl dma alloc` has run this program with."""
    fd = int(os.environ["ZONED_DMA_FD"])
    found = []
    for segment in os.environ["ZONED_DMA_SEGMENTS"].split(","):
        address, size, offset = (int(word, 16) for word in segment.split(":"))
        view = memoryview(mmap.mmap(fd, size, offset=offset))
        found.append(Place(physical=address, view=view))
    return found


def main(what: str, address: str, *words: str) -> None:
    """Do one thing, and print what came of it as JSON."""
    if what == "enable":
        enable(address, *words)
        return
    if what == "plain":
        mask, low, high = (int(word, 0) for word in words)
        found = plain(Edu(address), mask, Ordinary(low, "low"), Ordinary(high, "high"))
    elif what == "lent":
        found = exchange(Edu(address), lent())
    else:
        raise SystemExit(f"edu: {what}: enable, plain or lent")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
