# SPDX-License-Identifier: Apache-2.0
"""The half of the migration scenarios that runs in the guest. It only takes samples.

    python -m tests.lab.bench.migration_guest KIND <REQUEST.json >SAMPLES.json

Needs the installed zoned, its daemon, the programs holder and raw_mover, and root.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.lab.bench.guest_side import turns_of
from tests.lab.bench.migration_engine import Engine, move_known
from zoned.api.client import Client
from zoned.api.types import JobInfo
from zoned.engine.migration.look import where
from zoned.kernel.syscalls import migrate_pages

Request = Mapping[str, Any]
Step = Callable[["Holder", int, int], float]
"""Moves a holder's memory from a node to another, and returns how many seconds that took."""

_MIB = 1 << 20
_STRIDES = {"small": 4096, "thp": 2 * _MIB}
_GROUP = Path("/sys/fs/cgroup/zoned-bench")
_BALANCING = Path("/proc/sys/kernel/numa_balancing")
_BATCH = 4096
_ARRIVE_SECONDS = 60
_SOME = 64
_POLL_SECONDS = 0.001
_STILL_SECONDS = 2.0


class Holder:
    """A process with memory that is moved to and fro between two nodes.

    `left` counts the pages (of its size) that stayed behind, by who was to move them.
    """

    def __init__(self, folder: str, kind: str, mib: int, nodes: Sequence[int], *words: str) -> None:
        self.folder, self.stride = Path(folder), _STRIDES[kind]
        self.at, self.other = nodes
        self.left: dict[str, int] = {}
        command = [str(self.folder / "holder"), kind, str(mib), str(self.at), *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.start, self.size = self._read()

    def _read(self) -> list[int]:
        assert self._process.stdout is not None
        return [int(word) for word in self._process.stdout.readline().split()]

    def turn(self, name: str, step: Step) -> Callable[[], float]:
        """Return a turn: a step to where the memory is not."""

        def take() -> float:
            seconds = step(self, self.at, self.other)
            self.at, self.other = self.other, self.at
            self.left[name] = self.left.get(name, 0) + self.missing()
            return seconds

        return take

    def missing(self) -> int:
        """Return how many pages are not where they should be now."""
        return int((where(self.pid, self.addresses) != self.at).sum())

    @property
    def addresses(self) -> NDArray[np.uint64]:
        """The first address of each page."""
        return np.arange(self.start, self.start + self.size, self.stride, dtype=np.uint64)

    def lap(self) -> dict[str, float]:
        """End a lap of one that touches its pages, and return what holder.c tells, in seconds."""
        self._process.send_signal(signal.SIGUSR1)
        longest, lost, steps, wrong = self._read()
        return {"longest": longest / 1e9, "lost": lost / 1e9, "steps": steps, "wrong": wrong}

    def close(self) -> None:
        """End it; once is enough."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _holding(request: Request, mib: int, *words: str) -> Iterator[Holder]:
    """Hold memory, and keep the kernel from moving any of it on its own account."""
    before = _BALANCING.read_text()
    _BALANCING.write_text("0")
    holder = Holder(request["folder"], request["pages"], mib, request["nodes"], *words)
    try:
        yield holder
    finally:
        holder.close()
        _BALANCING.write_text(before)


# Those who move


def _job(client: Client, stall: int, movers: int) -> Step:
    """Ask the daemon, and follow the job as zonectl does; its own time counts."""

    def move(holder: Holder, source: int, target: int) -> float:
        route = {"source": str(source), "target": str(target)}
        how = {"stall": float(stall), "movers": movers}
        job = client.call("Memory.Migrate", JobInfo, pid=holder.pid, **route, **how)
        *_, job = client.stream("Jobs.Watch", JobInfo, id=job.id)
        if job.state not in {"done", "partial"} or job.started is None or job.ended is None:
            raise RuntimeError(job)
        return job.ended - job.started

    return move


def _kernel(holder: Holder, source: int, target: int) -> float:
    """Call what migratepages(8) calls, without its start."""
    begin = time.perf_counter()
    migrate_pages(holder.pid, {source}, {target})
    return time.perf_counter() - begin


def _command(holder: Holder, source: int, target: int) -> float:
    begin = time.perf_counter()
    subprocess.run(["migratepages", str(holder.pid), str(source), str(target)], check=True)
    return time.perf_counter() - begin


def _loop(movers: int, batch: int = _BATCH) -> Step:
    """Have the C program move; its own time counts."""

    def move(holder: Holder, _: int, target: int) -> float:
        numbers = (holder.pid, holder.start, holder.size, holder.stride, target, batch, movers)
        command = [str(holder.folder / "raw_mover"), *map(str, numbers)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        return int(done.stdout.split()[0]) / 1e9

    return move


def _cpuset(holder: Holder, source: int, target: int) -> float:
    """Write the node set of the holder's group; done when its pages are there."""
    nodes = _GROUP / "cpuset.mems"
    nodes.write_text(str(source))
    begin = time.perf_counter()
    nodes.write_text(str(target))
    deadline = begin + _ARRIVE_SECONDS
    # A few of them, and now and then: whoever asks for all, all the time, slows the kernel down.
    some = holder.addresses[::_SOME]
    while (where(holder.pid, some) != target).mean() > 0.01 and time.perf_counter() < deadline:
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - begin
    nodes.write_text(f"{source},{target}")
    return seconds


# What is measured


def throughput(request: Request) -> dict[str, Any]:
    """Seconds for the same memory, by who moves it; and pages left behind."""
    with Client() as client, _holding(request, request["mib"]) as holder:
        steps: dict[str, Step] = {"migrate_pages": _kernel, "migratepages": _command}
        for movers in (1, 2):
            steps[f"raw-{movers}"] = _loop(movers)
            for stall in (10, 100):
                steps[f"zoned-{stall}-{movers}"] = _job(client, stall, movers)
        steps["engine-100-1"] = _engine_alone(100)
        turns = {name: holder.turn(name, step) for name, step in steps.items()}
        samples = turns_of(request["rounds"], turns)
        return {"samples": samples, "left": holder.left, "huge": _huge(holder.pid)}


def _engine_alone(stall: int) -> Step:
    engine = Engine()

    def move(holder: Holder, source: int, target: int) -> float:
        return engine.move(holder.pid, source, target, stall=stall / 1000)["seconds"]

    return move


def python(request: Request) -> dict[str, Any]:
    """What the engine uses, without a daemon around it, by stall bound: see Engine.move."""
    with _holding(request, request["mib"]) as holder:
        spent: dict[str, list[dict[str, float]]] = {"10": [], "100": []}

        def step(stall: str) -> Step:
            def move(holder: Holder, source: int, target: int) -> float:
                bound = int(stall) / 1000
                spent[stall].append(engine.move(holder.pid, source, target, stall=bound))
                return spent[stall][-1]["seconds"]

            return move

        engine = Engine()
        turns_of(request["rounds"], {each: holder.turn(each, step(each)) for each in spent})
        return {"spent": {stall: found[1:] for stall, found in spent.items()}, "left": holder.left}


def stall(request: Request) -> dict[str, Any]:
    """The longest gap between two steps of a process that touches its pages, by who moves them.

    `way` is how it does that: see holder.c.
    """
    laps: dict[str, list[dict[str, float]]] = {}
    with (
        Client() as client,
        _holding(request, request["mib"], request["way"]) as holder,
        _in_group(holder),
    ):
        steps = {
            "zoned-10": _job(client, 10, 1),
            "zoned-10-2": _job(client, 10, 2),
            "zoned-100": _job(client, 100, 1),
            "migratepages": _command,
            "cpuset.mems": _cpuset,
        }
        turns = {
            name: _watched(holder, holder.turn(name, step), laps.setdefault(name, []))
            for name, step in steps.items()
        }
        still = laps.setdefault("still", [])
        turns["still"] = _watched(holder, lambda: _wait(laps["zoned-10"]), still)
        turns_of(request["rounds"], turns)
        return {"laps": {name: each[1:] for name, each in laps.items()}, "left": holder.left}


def _watched(
    holder: Holder, turn: Callable[[], float], laps: list[dict[str, float]]
) -> Callable[[], float]:
    def take() -> float:
        holder.lap()
        begin = time.perf_counter()
        turn()
        seconds = time.perf_counter() - begin
        laps.append({**holder.lap(), "seconds": seconds})
        return seconds

    return take


def _wait(laps: Sequence[Mapping[str, float]]) -> float:
    """Let it touch its pages for as long as the gentlest move took."""
    seconds = laps[-1]["seconds"] if laps else _STILL_SECONDS
    time.sleep(seconds)
    return seconds


@contextlib.contextmanager
def _in_group(holder: Holder) -> Iterator[None]:
    _GROUP.mkdir()
    try:
        (_GROUP / "cpuset.mems").write_text(f"{holder.at},{holder.other}")
        (_GROUP / "cgroup.procs").write_text(str(holder.pid))
        yield
    finally:
        holder.close()
        _GROUP.rmdir()


def whole(request: Request) -> dict[str, Any]:
    """Seconds for small processes: one migrate_pages(2), batches of known pages, and a look."""
    engine = Engine()

    def looking(holder: Holder) -> Callable[[], float]:
        return lambda: engine.look(holder.pid, holder.at, holder.other)

    def batches(pages: int) -> Step:
        def move(holder: Holder, _: int, target: int) -> float:
            return move_known(holder.pid, holder.addresses, target, pages)

        return move

    found: dict[str, Any] = {}
    for mib in request["sizes"]:
        with _holding(request, mib) as holder:
            steps = {"whole": _kernel, "batch": batches(_BATCH), "batches-of-64": batches(64)}
            turns = {name: holder.turn(name, step) for name, step in steps.items()}
            turns["look"] = looking(holder)
            samples = turns_of(request["rounds"], turns)
            found[str(mib)] = {"samples": samples, "left": holder.left}
    return found


def _huge(pid: int) -> int:
    """Return the bytes that a process has in huge pages."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    line = next(line for line in text.splitlines() if line.startswith("AnonHugePages:"))
    return int(line.split()[1]) * 1024


KINDS: dict[str, Callable[[Request], Any]] = {
    "throughput": throughput,
    "python": python,
    "stall": stall,
    "whole": whole,
}


def main() -> None:
    """Take the samples that the arguments and standard input ask for."""
    json.dump(KINDS[sys.argv[1]](json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
