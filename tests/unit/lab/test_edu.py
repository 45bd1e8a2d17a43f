# SPDX-License-Identifier: Apache-2.0
"""The driver of the edu device, against registers that a thread answers."""

import mmap
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.guest_programs import edu
from tests.lab.guest_programs.edu import MOVE, Edu, Place, enable, exchange, far_pair, plain
from tests.lab.guest_programs.memory import PAGE

ADDRESS = "0000:00:04.0"
MASK = 0xFFFF
MEMORY = 0x40000


class FakeDevice:
    """A device that reaches 64 KiB of a machine with 256 KiB."""

    def __init__(self, devices: Path) -> None:
        self.memory = memoryview(bytearray(MEMORY))
        self._held = bytearray(4096)
        folder = devices / ADDRESS
        folder.mkdir()
        (folder / "config").write_bytes(bytes(256))
        (folder / "resource0").write_bytes(struct.pack("<I", 0x010000ED).ljust(4096, b"\0"))
        with (folder / "resource0").open("r+b") as file:
            self.registers = mmap.mmap(file.fileno(), 0)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._end.wait(0.001):
            source, target, count, command = struct.unpack_from("<4Q", self.registers, 0x80)
            if not command & 1:
                continue
            if command & 2:
                target &= MASK
                self.memory[target : target + count] = self._held[:count]
            else:
                source &= MASK
                self._held[:count] = self.memory[source : source + count]
            struct.pack_into("<Q", self.registers, 0x98, command & ~1)

    def end(self) -> None:
        self._end.set()
        self._thread.join()


class Pages(edu.Ordinary):
    """Some pages of the machine, all there from the start."""

    def __init__(self, device: FakeDevice, *frames: int) -> None:
        super().__init__(0, "")
        self.pages = {each: device.memory[each : each + PAGE] for each in frames}

    def grow(self, size: int = 0) -> None:
        pass

    def place(self, physical: int) -> Place:
        return Place(physical=physical, view=self.pages[physical])


def piece(device: FakeDevice, start: int, size: int) -> Place:
    return Place(physical=start, view=device.memory[start : start + size])


@pytest.fixture
def device(tmp_path: Path) -> Iterator[FakeDevice]:
    device = FakeDevice(tmp_path)
    yield device
    device.end()


def test_memory_space_and_bus_master_are_added(device: FakeDevice, tmp_path: Path) -> None:
    (tmp_path / ADDRESS / "config").write_bytes(struct.pack("<4xH", 0x400).ljust(256, b"\0"))
    enable(ADDRESS, devices=tmp_path)
    found = (tmp_path / ADDRESS / "config").read_bytes()
    assert struct.unpack_from("<4xH", found) == (0x406,)
    assert len(found) == 256


def test_within_reach_everything_comes_back(device: FakeDevice, tmp_path: Path) -> None:
    pieces = [piece(device, 0x2000, 0x4000), piece(device, 0x6000, 0x2000)]
    told = exchange(Edu(ADDRESS, devices=tmp_path), pieces)
    assert told == {"places": [0x2000, 0x6000 - MOVE, 0x6000, 0x8000 - MOVE], "lost": []}


def test_segments_beyond_reach_are_told(device: FakeDevice, tmp_path: Path) -> None:
    far = Place(physical=0x13000, view=device.memory[0x2000:0x4000])
    told = exchange(Edu(ADDRESS, devices=tmp_path), [far])
    assert told["lost"] == [0x13000, 0x15000 - MOVE]


def test_two_places_that_are_one_are_told(device: FakeDevice, tmp_path: Path) -> None:
    pieces = [piece(device, 0x1000, 0x1000), piece(device, 0x1000, 0x1000)]
    told = exchange(Edu(ADDRESS, devices=tmp_path), pieces)
    assert told["lost"] == [0x1000, 0x1000 + PAGE - MOVE]


def test_plain_memory_beyond_the_reach(device: FakeDevice, tmp_path: Path) -> None:
    low, high = Pages(device, 0x3000, 0x5000), Pages(device, 0x21000, 0x23000)
    told = plain(Edu(ADDRESS, devices=tmp_path), MASK, low, high)
    assert told == {
        "near": {"physical": 0x5000, "both_ways": True},
        "far": {"physical": 0x23000, "taken": 0x3000},
        "read": "taken",
        "written": "taken",
    }


def test_no_page_far_away_goes_with_a_near_one(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edu, "_MOST", 2 * PAGE + 1)
    low, high = Pages(device, 0x3000, 0x5000), Pages(device, 0x21000)
    high.grow = lambda size=0: high.pages.update({len(high.pages): high.pages[0x21000]})  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="one of 2 within reach"):
        plain(Edu(ADDRESS, devices=tmp_path), MASK, low, high)


def test_pairs() -> None:
    assert far_pair(MASK, [0x3000], [0x3000, 0x14000, 0x13000]) == (0x13000, 0x3000)
    assert far_pair(MASK, [0x13000], [0x23000]) is None


def test_what_is_no_edu(device: FakeDevice, tmp_path: Path) -> None:
    device.registers[:4] = b"\xff\xff\xff\xff"
    with pytest.raises(RuntimeError, match="0xffffffff"):
        Edu(ADDRESS, devices=tmp_path)


def test_device_that_never_ends(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edu, "_LOOKS", 3)
    device.end()
    with pytest.raises(TimeoutError, match="after 3 looks"):
        Edu(ADDRESS, devices=tmp_path).write_to_device(0x1000)


@pytest.mark.parametrize("size", [0, MOVE + 1])
def test_transfers_that_the_device_would_not_survive(
    device: FakeDevice, tmp_path: Path, size: int
) -> None:
    with pytest.raises(ValueError, match="no transfer"):
        Edu(ADDRESS, devices=tmp_path).read_from_device(0x1000, size)
