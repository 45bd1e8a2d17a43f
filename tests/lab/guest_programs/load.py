# SPDX-License-Identifier: Apache-2.0
"""Holds memory on a node, or keeps writing to it, until it is told to end.

    python3 -m tests.lab.guest_programs.load NAME --kind small --mib 64 --node 1

It listens to signals alone: SIGUSR1 does what --then says, SIGUSR2 ends a lap of the writer, and
SIGTERM has it compare each byte with what it wrote, report and end. /run/load/NAME.json tells where
the memory is once all of it is there, /run/load/NAME.report.json what came of it.
"""

import argparse
import ctypes
import json
import os
import random
import signal
import sys
import time
import zlib
from array import array
from pathlib import Path
from typing import Any

from tests.lab.guest_programs import memory
from tests.lab.guest_programs.memory import HEADER, PAGE

FOLDER = Path("/run/load")
_SIGNALS = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NOISE = random.Random(7).randbytes(PAGE)
_CHUNK = 256
"""Pages that are filled and compared in one piece."""
_STEPS_BETWEEN_LOOKS = 64
_WORDS = PAGE // 8


def write_json(name: str, content: dict[str, Any]) -> None:
    """Let a file appear, complete."""
    FOLDER.mkdir(exist_ok=True)
    partial = FOLDER / f"{name}.{os.getpid()}"
    partial.write_text(json.dumps(content))
    partial.rename(FOLDER / f"{name}.json")


class Load:
    """Memory with a known content: a header and noise in each page."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        size = options.mib << 20
        self._view = memory.KINDS[options.kind](size, options.name)
        self._pages: int = size // PAGE
        self._step: int = 0
        with memory.memory_from(options.node):
            self._fill()
            if options.kind == "private-file":
                self._become_private()

    def _fill(self) -> None:
        for first in range(0, self._pages, _CHUNK):
            content = self._content(first)
            self._view[first * PAGE : first * PAGE + len(content)] = content
        if self._options.kind.endswith("-file"):
            # Pages that still have to be written out would be busy, at whatever moment.
            os.sync()

    def _content(self, first: int) -> bytearray:
        """Return what a chunk of pages must hold by now."""
        pages = range(first, min(first + _CHUNK, self._pages))
        content = bytearray(_NOISE * len(pages))
        words = memoryview(content).cast("Q")
        words[::_WORDS] = memoryview(array("Q", pages))
        words[1::_WORDS] = memoryview(array("Q", map(self._written, pages)))
        words.release()
        return content

    def _written(self, page: int) -> int:
        rounds, place = divmod(self._step, self._pages)
        return rounds + 1 if page < place else rounds

    def _become_private(self) -> None:
        """Map the file anew: the first half is only read, the other becomes anonymous memory."""
        self._view = memory.private_file(len(self._view), self._options.name)
        for page in range(self._pages):
            if page < self._pages // 2:
                self._view[page * PAGE]
            else:
                HEADER.pack_into(self._view, page * PAGE, page, 0)

    def touch(self) -> None:
        """Map each page."""
        for page in range(self._pages):
            self._view[page * PAGE]

    def rewrite(self) -> None:
        """Write each page again with what it holds, so that a copy on write is made."""
        with memory.memory_from(self._options.node):
            self._fill()

    def write(self) -> tuple[int, int]:
        """Write to the next pages; return nanoseconds of the longest step, and when it ended."""
        longest, before = 0, time.monotonic_ns()
        for _ in range(_STEPS_BETWEEN_LOOKS):
            rounds, page = divmod(self._step, self._pages)
            HEADER.pack_into(self._view, page * PAGE, page, rounds + 1)
            self._step += 1
            now = time.monotonic_ns()
            longest = max(longest, now - before)
            before = now
        return longest, before

    def pin(self, mib: int) -> str:
        return memory.pin(self._view[: mib << 20])

    def where(self) -> dict[str, int]:
        return {"start": memory.address_of(self._view), "size": len(self._view)}

    def compare(self) -> dict[str, Any]:
        """Compare all memory with what must be there; a writer's by a checksum as well."""
        wanted = found = 0
        wrong: list[int] = []
        for first in range(0, self._pages, _CHUNK):
            expected = bytes(self._content(first))
            actual = bytes(self._view[first * PAGE : first * PAGE + len(expected)])
            if actual != expected:
                wrong.append(first)
            if self._options.write:
                wanted, found = zlib.crc32(expected, wanted), zlib.crc32(actual, found)
        return {
            "intact": not wrong,
            "wrong": wrong,
            "checksum": found,
            "wanted_checksum": wanted,
            "rounds": self._step // self._pages,
        }


def _children(load: Load, number: int) -> list[int]:
    """Start processes that have the load's memory, too, and end with this one."""
    children = []
    for _ in range(number):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _die_with_parent()
            load.touch()
            os.write(writing, b".")
            signal.sigwait({signal.SIGTERM})
            os._exit(0)
        os.close(writing)
        if not os.read(reading, 1):
            raise SystemExit("a child died early")
        children.append(child)
    return children


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _fork(load: Load, options: argparse.Namespace) -> None:
    """Have a child that has a copy of all memory, made on the node where the load began."""
    child = os.fork()
    if child == 0:
        _die_with_parent()
        load.rewrite()
        write_json(f"{options.name}.forked", {"pid": os.getpid(), **load.where()})
        while signal.sigwait(_SIGNALS) != signal.SIGTERM:
            pass
        write_json(f"{options.name}.forked.report", load.compare())
        os._exit(0)


def _exec(options: argparse.Namespace) -> None:
    """Become a program that holds as much memory on the same node, and tells of it."""
    words = ["-m", "tests.lab.guest_programs.load", f"{options.name}.execed"]
    words += ["--kind", options.kind, "--mib", str(options.mib), "--node", str(options.node)]
    os.execv(sys.executable, [sys.executable, *words])


def _run(load: Load, options: argparse.Namespace) -> list[float]:
    """Hold or write until SIGTERM; return the longest pause of each lap, in seconds."""
    laps: list[float] = []
    longest, ended = 0, time.monotonic_ns()
    while True:
        if options.write:
            pause, now = load.write()
            longest, ended = max(longest, pause), now
            # With no time to wait, it is told at once that there is no signal.
            told = signal.sigtimedwait(_SIGNALS, 0)
            number = told.si_signo if told else 0
            longest = max(longest, time.monotonic_ns() - ended)
        else:
            number = signal.sigwait(_SIGNALS)
        if number == signal.SIGUSR2:
            laps.append(longest / 1e9)
            longest = 0
            write_json(f"{options.name}.laps", {"laps": laps})
        elif number == signal.SIGUSR1:
            _act(load, options)
        elif number == signal.SIGTERM:
            return laps


def _act(load: Load, options: argparse.Namespace) -> None:
    if options.then == "fork":
        _fork(load, options)
    elif options.then == "exec":
        _exec(options)
    elif options.then == "exit":
        os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--kind", choices=[*memory.KINDS], required=True)
    parser.add_argument("--mib", type=int, required=True)
    parser.add_argument("--node", type=int, required=True)
    parser.add_argument("--write", action="store_true", help="keep writing to all pages in turn")
    parser.add_argument("--children", type=int, default=0, help="processes with the same memory")
    parser.add_argument("--pin", type=int, default=0, help="MiB from the beginning to be pinned")
    parser.add_argument("--then", choices=["fork", "exec", "exit"])
    return parser.parse_args()


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    options = _options()
    load = Load(options)
    children = _children(load, options.children)
    pinned = load.pin(options.pin) if options.pin else None
    state = {"pid": os.getpid(), **load.where(), "children": children, "pinned": pinned}
    write_json(options.name, state)
    laps = _run(load, options)
    write_json(f"{options.name}.report", {**load.compare(), "laps": laps})


if __name__ == "__main__":
    main()
