# SPDX-License-Identifier: Apache-2.0
"""Clients that have buffers of zoned, and what the kernel says of them. To be run with the Python
that has zoned. Each prints one line of JSON, `hold` one for each signal that it gets.

    hold RESERVATION SIZE WORD  has a buffer and fills it with WORD; SIGUSR1: tells whether it still
                                holds that alone; SIGUSR2: gives it back and stays; SIGTERM: ends
    rounds RESERVATION SIZE N   has a buffer and gives it back, N times
    lazy RESERVATION SIZE N     asks for N buffers, never reads an answer, and stays
    junk N                      sends N pieces of nonsense
    where PID START SIZE        the physical address of each 4 KiB page there, by /proc/PID/pagemap
    death PID                   kills it; the seconds until the ledger has none of its leases
"""

import array
import json
import mmap
import os
import random
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

SOCKET = "/run/zoned/io.zoned"
LEDGER = Path("/run/zoned/ledger.json")


def say(**words: Any) -> None:
    """Print one line."""
    print(json.dumps(words), flush=True)


def hold(reservation: str, size: str, word: str) -> None:
    """Have a buffer."""
    from zoned.client import allocate

    # Waited for: a handler would run at a moment that nobody knows.
    signals = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with allocate(int(size), reservation=reservation) as buffer:
        # No other names: nothing else may keep it from being unmapped.
        maps = [buffer.map(each) for each in buffer.segments]
        blank = all(not any(each[:: mmap.PAGESIZE]) for each in maps)
        for each in maps:
            each[:] = word.encode() * (len(each) // len(word))
        places = [[_address(each), len(each)] for each in maps]
        segments = [[each.address, each.size] for each in buffer.segments]
        say(pid=os.getpid(), lease=buffer.lease, segments=segments, places=places, blank=blank)
        while (number := signal.sigwait(signals)) != signal.SIGTERM:
            if number == signal.SIGUSR2:
                maps.clear()
                buffer.close()
                say(closed=True)
            else:
                whole = word.encode() * (mmap.PAGESIZE // len(word))
                say(
                    intact=all(
                        each[at : at + mmap.PAGESIZE] == whole
                        for each in maps
                        for at in range(0, len(each), mmap.PAGESIZE)
                    )
                )


def _address(mapped: mmap.mmap) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


def rounds(reservation: str, size: str, count: str) -> None:
    """Have many buffers, one after the other."""
    from zoned.client import allocate

    begin = time.monotonic()
    for _ in range(int(count)):
        with allocate(int(size), reservation=reservation) as buffer:
            buffer.map(buffer.segments[0])[:1] = b"x"
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    say(seconds=time.monotonic() - begin, files=files)


def lazy(reservation: str, size: str, count: str) -> None:
    """Never read."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        call = {
            "method": "io.zoned.DmaBuffers.Alloc",
            "parameters": {"reservation": reservation, "size": int(size)},
        }
        connection.sendall((json.dumps(call).encode() + b"\0") * int(count))
        say(pid=os.getpid())
        signal.pause()


def junk(count: str) -> None:
    """Talk nonsense, with descriptors attached."""
    numbers, answers = random.Random(1), 0
    method = b'{"method":"io.zoned.DmaBuffers.Alloc","parameters":'
    for each in range(int(count)):
        with socket.socket(socket.AF_UNIX) as connection, Path("/dev/null").open() as file:
            connection.connect(SOCKET)
            noise = numbers.randbytes(200).replace(b"\0", b"x")
            text = (noise, method + noise, method + b'{"size":"x"}}', method + b"{}}")[each % 4]
            files = array.array("i", [file.fileno()] * 3)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]
            connection.sendmsg([text + b"\0"], rights)
            answers += bool(connection.recv(4096))
    say(answers=answers)


def where(pid: str, start: str, size: str) -> None:
    """Tell where pages are."""
    first, count = int(start) // mmap.PAGESIZE, int(size) // mmap.PAGESIZE
    with Path(f"/proc/{pid}/pagemap").open("rb") as pagemap:
        pagemap.seek(first * 8)
        words = struct.unpack(f"{count}Q", pagemap.read(8 * count))
    assert all(word >> 63 for word in words)
    say(pages=[(word & (1 << 55) - 1) * mmap.PAGESIZE for word in words])


def death(pid: str) -> None:
    """Kill it, and watch."""
    begin = time.monotonic()
    os.kill(int(pid), signal.SIGKILL)
    while any(each["pid"] == int(pid) for each in json.loads(LEDGER.read_text())["leases"]):
        assert time.monotonic() < begin + 60
    say(seconds=time.monotonic() - begin)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
