# SPDX-License-Identifier: Apache-2.0
"""Watches the machine until SIGTERM, and prints what it saw as JSON.

python3 -m tests.lab.guest_programs.watch files FILE...     each different state of these files
python3 -m tests.lab.guest_programs.watch mkdir FOLDER      how long making a folder there took
python3 -m tests.lab.guest_programs.watch pages PID START SIZE      bytes by node, at once
python3 -m tests.lab.guest_programs.watch anonymous NODE    whose anonymous pages are there, at once
"""

import json
import re
import signal
import sys
import time
from array import array
from pathlib import Path
from typing import Any

READY = Path("/run/watch.ready")
"""There as soon as it watches."""

_PAGE = 4096
_PAUSE_SECONDS = 0.002
_PRESENT = 1 << 63  # Documentation/admin-guide/mm/pagemap.rst
_FRAME = (1 << 55) - 1


def _watching() -> bool:
    if not READY.exists():
        READY.touch()
    return signal.sigtimedwait({signal.SIGTERM}, _PAUSE_SECONDS) is None


def files(paths: list[Path]) -> list[Any]:
    """Return each combination of contents, in order, and how often it was seen in a row."""
    seen: list[Any] = []
    while _watching():
        content = [path.read_text().strip() for path in paths]
        if not seen or seen[-1][0] != content:
            seen.append([content, 0])
        seen[-1][1] += 1
    return seen


def mkdir(folder: Path) -> dict[str, float]:
    """Return seconds of the longest and of the median mkdir, and how many there were."""
    waits = []
    while _watching():
        begin = time.monotonic()
        folder.mkdir()
        waits.append(time.monotonic() - begin)
        folder.rmdir()
    waits.sort()
    return {"longest": waits[-1], "median": waits[len(waits) // 2], "number": len(waits)}


def pages(pid: int, start: int, size: int) -> dict[int, int]:
    """Return resident bytes by node, from page frames and the memory blocks that they are in."""
    nodes = _node_of_block()
    frames_a_block = int(Path("/sys/devices/system/memory/block_size_bytes").read_text(), 16)
    frames_a_block //= _PAGE
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(start // _PAGE * 8)
        entries = array("Q", pagemap.read(size // _PAGE * 8))
    found: dict[int, int] = {}
    for entry in entries:
        if entry & _PRESENT:
            node = nodes[(entry & _FRAME) // frames_a_block]
            found[node] = found.get(node, 0) + _PAGE
    return found


def _node_of_block() -> dict[int, int]:
    links = Path("/sys/devices/system/node").glob("node*/memory[0-9]*")
    found = {}
    for link in links:
        if numbers := re.fullmatch(r".*/node(\d+)/memory(\d+)", str(link)):
            found[int(numbers[2])] = int(numbers[1])
    return found


def anonymous(node: int) -> dict[str, int]:
    """Return who ("PID NAME CGROUP") has how many anonymous pages on a node."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            maps = (folder / "numa_maps").read_text()
            name = (folder / "comm").read_text().strip()
            where = (folder / "cgroup").read_text().strip()
        except OSError:  # it has ended
            continue
        if count := _anonymous_in(maps, f"N{node}="):
            found[f"{folder.name} {name} {where}"] = count
    return found


def _anonymous_in(maps: str, prefix: str) -> int:
    lines = [line for line in maps.splitlines() if " anon=" in line and " file=" not in line]
    words = (word for line in lines for word in line.split() if word.startswith(prefix))
    return sum(int(word.removeprefix(prefix)) for word in words)


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    what, *words = sys.argv[1:]
    result: Any
    if what == "files":
        result = files([Path(word) for word in words])
    elif what == "mkdir":
        result = mkdir(Path(words[0]))
    elif what == "anonymous":
        result = anonymous(int(words[0]))
    else:
        result = pages(int(words[0]), int(words[1]), int(words[2]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
