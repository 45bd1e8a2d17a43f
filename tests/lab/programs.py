# SPDX-License-Identifier: Apache-2.0
"""Programs that tests run in the guest, and what independent tools say of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.harness.guest import Guest, Process
from tests.lab.harness.wait import wait_until

_HOG = """
import mmap, pathlib, signal, sys
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(memory), 4096):
    memory[page] = 1
pathlib.Path(sys.argv[2]).touch()
signal.pause()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hog:
    """A program that holds memory, every page touched once, until it is killed."""

    process: Process
    pid: int


def hog_command(mib: int, ready: str) -> list[str]:
    """Return the command of a program that holds `mib` MiB and touches the file `ready` then."""
    return ["python3", "-c", _HOG, str(mib), ready]


def start_hog(guest: Guest, mib: int, before: Sequence[str] = (), name: str = "hog") -> Hog:
    """Start a hog, `before` being the words in front of it, and wait until it holds its memory.

    Everything in `before` must become the program in the end (exec), so that its pid is the hog's.
    """
    ready = f"/run/{name}.ready"
    guest.check(["rm", "-f", ready])
    process = guest.start([*before, *hog_command(mib, ready)])
    wait_until(
        lambda: guest.exists(ready) or process.pid not in pids(guest), f"{name} holds {mib} MiB"
    )
    assert guest.exists(ready), process.wait()
    return Hog(process=process, pid=process.pid)


def pids(guest: Guest) -> set[int]:
    """Return all processes of the guest."""
    return {int(word) for word in guest.check(["ls", "/proc"]).split() if word.isdigit()}


def anonymous_by_node(guest: Guest, pid: int) -> dict[int, int]:
    """Return MiB of anonymous memory by node, straight from numa_maps."""
    found: dict[int, int] = {}
    for line in guest.read(f"/proc/{pid}/numa_maps").splitlines():
        if " anon=" in line and " file=" not in line:
            for node, pages in re.findall(r" N(\d+)=(\d+)", line):
                found[int(node)] = found.get(int(node), 0) + int(pages)
    return {node: pages >> 8 for node, pages in found.items() if pages >> 8}


def private_by_numastat(guest: Guest, pid: int) -> dict[int, float]:
    """Return MiB of private memory by node, as numastat(8) counts it."""
    text = guest.check(["numastat", "-p", str(pid)])
    row = next(line for line in text.splitlines() if line.startswith("Private"))
    return dict(enumerate(float(word) for word in row.split()[1:-1]))


def cgroup_of(guest: Guest, pid: int) -> str:
    """Return the cgroup of a process."""
    return guest.read(f"/proc/{pid}/cgroup").strip().rpartition(":")[2]
