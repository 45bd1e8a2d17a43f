# SPDX-License-Identifier: Apache-2.0
"""Programs with memory of each kind in the guest, and what is known of them without zoned."""

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.harness.guest import PYTHON, Guest, Process
from tests.lab.harness.wait import wait_until

MIB = 1 << 20
_OWN_BYTES = 512 << 10
_POOL = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"
_SHARED = "/mnt/host/programs"
_RUN = ("env", f"PYTHONPATH={_SHARED}", "PYTHONDONTWRITEBYTECODE=1", "python3", "-m")
_PACKAGE = "tests.lab.guest_programs"
_SIGNAL_OF = {"then": "USR1", "lap": "USR2", "end": "TERM"}


def command(guest: Guest, program: str, *words: object) -> list[str]:
    """Return the command of one of the guest's programs; it becomes python3 by exec."""
    _copy_programs(guest)
    return [*_RUN, f"{_PACKAGE}.{program}", *map(str, words)]


def runner_command(guest: Guest) -> list[str]:
    """Return the command of what runs all other commands; it needs zoned's own Python."""
    _copy_programs(guest)
    environment = [*_RUN[:-2], "LANG=C.UTF-8", "OPENBLAS_NUM_THREADS=1"]
    return [*environment, PYTHON, "-m", f"{_PACKAGE}.runner"]


def _copy_programs(guest: Guest) -> None:
    if "programs" not in guest.facts:
        folder = Path(guest.share, "programs", *_PACKAGE.split("."))
        shutil.copytree(Path(__file__).with_name("guest_programs"), folder)
        guest.facts["programs"] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A program that holds memory, as guest_programs/load.py says."""

    guest: Guest
    name: str
    pid: int
    start: int
    size: int
    children: tuple[int, ...] = ()
    pinned: str | None = None
    process: Process | None = field(default=None, repr=False)

    def by_node(self) -> dict[int, int]:
        """Return MiB of the load's memory by node, from /proc/PID/pagemap."""
        done = self.guest.check(
            command(self.guest, "watch", "pages", self.pid, self.start, self.size)
        )
        return {int(node): size // MIB for node, size in json.loads(done).items()}

    def send(self, what: str) -> None:
        """Have it act (`then`) or `end` a `lap`."""
        self.guest.check(["kill", f"-{_SIGNAL_OF[what]}", str(self.pid)])

    def lap(self) -> float:
        """Return seconds of the writer's longest pause since the last lap, and begin a new one."""
        laps = f"/run/load/{self.name}.laps.json"
        self.guest.check(["rm", "-f", laps])
        self.send("lap")
        wait_until(lambda: self.guest.exists(laps), f"{self.name} ends its lap")
        return float(json.loads(self.guest.read(laps))["laps"][-1])

    def end(self) -> dict[str, Any]:
        """End it, and return its report on what it found in its memory."""
        self.send("end")
        report = wait_for_json(self.guest, f"{self.name}.report")
        # It reports before it ends, and is a member of its zone until then.
        wait_until(self._is_over, f"the end of {self.name}")
        return report

    def _is_over(self) -> bool:
        """Tell whether it has ended; nobody may have asked how, so that a zombie is left."""
        path = f"/proc/{self.pid}/stat"
        done = self.guest.run(["cat", path])
        return done.returncode != 0 or done.stdout.rpartition(")")[2].split()[0] in "ZX"


def start_load(
    guest: Guest,
    kind: str,
    mib: int,
    *words: object,
    node: int,
    name: str = "load",
    before: Sequence[str] = (),
) -> Load:
    """Start a load on `node`, also with what python3 itself needs; wait until it has its memory.

    `before` are words in front of its command. `words` are further options of load.py.
    """
    guest.shell(f"rm -f /run/load/{name}.*")
    arguments = (name, "--kind", kind, "--mib", mib, "--node", node, *words)
    pinned = ["taskset", "-c", str(node)]
    process = guest.start([*before, *pinned, *command(guest, "load", *arguments)])
    return load_of(guest, name, process)


def load_of(guest: Guest, name: str, process: Process | None = None) -> Load:
    """Return the load of this name as soon as it has its memory."""
    state = wait_for_json(guest, name)
    state["children"] = tuple(state.get("children", ()))
    return Load(guest=guest, name=name, process=process, **state)


def wait_for_json(guest: Guest, name: str, timeout: float = 120) -> dict[str, Any]:
    """Return what a load wrote down, once it is there."""
    path = f"/run/load/{name}.json"
    wait_until(lambda: guest.exists(path), f"{path} appears", timeout)
    found: dict[str, Any] = json.loads(guest.read(path))
    return found


def check_intact(load: Load) -> None:
    """End a load; each byte of its memory must be what it wrote."""
    report = load.end()
    assert report["intact"], report


def resident(guest: Guest, pid: int) -> dict[int, int]:
    """Return resident bytes of a process by node, from numa_maps."""
    found: dict[int, int] = {}
    for line in guest.read(f"/proc/{pid}/numa_maps").splitlines():
        size = re.search(r" kernelpagesize_kB=(\d+)", line)
        for node, pages in re.findall(r" N(\d+)=(\d+)", line):
            assert size
            found[int(node)] = found.get(int(node), 0) + (int(pages) * int(size[1]) << 10)
    return found


def alike(*sizes: float) -> bool:
    """Tell whether sizes in bytes are the same, but for what a load's interpreter does meanwhile.

    It maps and frees some pages of its own whenever it does anything at all.
    """
    return max(sizes) - min(sizes) <= _OWN_BYTES


def numastat(guest: Guest, pid: int, row: str = "Total") -> dict[int, float]:
    """Return MiB by node in a row (Huge, Heap, Stack, Private, Total) of numastat(8)."""
    text = guest.check(["numastat", "-p", str(pid)])
    line = next(line for line in text.splitlines() if line.startswith(row))
    return dict(enumerate(float(word) for word in line.split()[1:-1]))


class Watch:
    """One of the programs of guest_programs/watch.py, which watch until they are asked."""

    def __init__(self, guest: Guest, what: str, paths: Iterable[str]) -> None:
        guest.check(["rm", "-f", "/run/watch.ready"])
        self._process = guest.start(command(guest, "watch", what, *paths))
        wait_until(lambda: guest.exists("/run/watch.ready"), f"watching {what}")

    def end(self) -> Any:
        self._process.signal(15)
        done = self._process.wait()
        assert done.returncode == 0, done
        return json.loads(done.stdout)


def set_pools(guest: Guest, pages: int, *nodes: int) -> None:
    """Have pools of so many 2 MiB pages on each of these nodes."""
    for node in nodes:
        guest.write(_POOL.format(node), f"{pages}\n")
        assert int(guest.read(_POOL.format(node))) == pages


def free_mib(guest: Guest, node: int) -> int:
    """Return what is free on a node, from its meminfo."""
    lines = guest.read(f"/sys/devices/system/node/node{node}/meminfo").splitlines()
    return next(int(line.split()[3]) >> 10 for line in lines if " MemFree:" in line)
