# SPDX-License-Identifier: Apache-2.0
"""The half of the benchmark that runs in the guest. It only takes samples.

    /opt/zoned/bin/python guest_side.py KIND <REQUEST.json >SAMPLES.json

One file, with nothing from beside it: in the guest there is only the installed zoned.
"""

import functools
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Samples = dict[str, list[float]]
Command = Sequence[str]

_CGROUPS = Path("/sys/fs/cgroup")
_BENCH_GROUP = _CGROUPS / "zoned-bench"
_ZONE = "bench-zone"
_SLICE = "zbench.slice"
_JOB_POLL_SECONDS = 0.001


def turns_of(
    number: int, contestants: Mapping[str, Callable[[], T]], *, warm_up: int = 1
) -> dict[str, list[T]]:
    """Let each contestant have its turn in each round, in turned order every other round.

    Returns what the turns returned by contestant. What runs first in a round may find colder
    caches, or a machine whose clock has not caught up: so that is not always the same one.
    """
    samples: dict[str, list[T]] = {name: [] for name in contestants}
    for index in range(-warm_up, number):
        names = list(contestants)
        for name in names if index % 2 else reversed(names):
            found = contestants[name]()
            if index >= 0:
                samples[name].append(found)
    return samples


def rounds_of(
    number: int, contestants: Mapping[str, Callable[[], None]], *, warm_up: int = 1
) -> Samples:
    """Return how many seconds the turns of each contestant took."""
    timed = {name: _timed(run) for name, run in contestants.items()}
    return turns_of(number, timed, warm_up=warm_up)


def _timed(run: Callable[[], None]) -> Callable[[], float]:
    def take() -> float:
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    return take


def _runner(*commands: Command) -> Callable[[], None]:
    def run() -> None:
        for command in commands:
            subprocess.run(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)

    return run


def commands(request: Mapping[str, Any]) -> Samples:
    """Time whole commands: `commands` maps a name to a list of commands, run one by one."""
    contestants = {name: _runner(*each) for name, each in request["commands"].items()}
    return rounds_of(request["rounds"], contestants)


def create_destroy(request: Mapping[str, Any]) -> Samples:
    """Time the making and unmaking of a zone, and of a bare group and slice with such limits."""
    from zoned.api.client import Client

    size, node = request["size"], request["node"]
    make = ["zonectl", "create", _ZONE, "--size", str(size), "--nodes", str(node)]
    _BENCH_GROUP.mkdir()
    try:
        (_BENCH_GROUP / "cgroup.subtree_control").write_text("+memory +cpuset")
        with Client() as client:
            return rounds_of(
                request["rounds"],
                {
                    "socket": lambda: _zone_by_socket(client, size, node),
                    "command": _runner(make, ["zonectl", "destroy", _ZONE]),
                    "files": lambda: _bare_group(size, node),
                    "systemctl": _runner(*_slice_by_systemctl(size, node)),
                    "dbus": SliceByBus(size, node).make_and_stop,
                },
            )
    finally:
        _BENCH_GROUP.rmdir()
        # Not in each round, because it has systemd read all units again: between the rounds the
        # properties stay behind, and what `systemctl start` applies then is the same.
        subprocess.run(["systemctl", "revert", _SLICE], check=True)


def _zone_by_socket(client: Any, size: int, node: int) -> None:
    from zoned.api.types import JobInfo, ZoneDetail

    client.call("Zones.Create", ZoneDetail, name=_ZONE, size=size, nodes=str(node))
    job = client.call("Zones.Destroy", JobInfo, name=_ZONE)
    *_, job = client.stream("Jobs.Watch", JobInfo, id=job.id)
    if job.state != "done":
        raise RuntimeError(job)


def _bare_group(size: int, node: int) -> None:
    group = _BENCH_GROUP / "zone"
    group.mkdir()
    for name, value in (
        ("memory.max", size),
        ("memory.min", size),
        ("cpuset.mems", node),
        ("cpuset.cpus", node),
    ):
        (group / name).write_text(str(value))
    group.rmdir()


def _slice_by_systemctl(size: int, node: int) -> list[list[str]]:
    limits = [f"MemoryMax={size}", f"MemoryMin={size}"]
    limits += [f"AllowedMemoryNodes={node}", f"AllowedCPUs={node}"]
    return [
        ["systemctl", "start", _SLICE],
        ["systemctl", "set-property", "--runtime", _SLICE, *limits],
        ["systemctl", "stop", _SLICE],
    ]


class SliceByBus:
    """The least that a program asks of systemd to have a slice and lose it again."""

    def __init__(self, size: int, node: int) -> None:
        from jeepney import DBusAddress, new_method_call  # type: ignore[import-untyped]
        from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped]

        self._new_call = new_method_call
        self._bus = open_dbus_connection(bus="SYSTEM")
        self._manager = DBusAddress(
            "/org/freedesktop/systemd1",
            bus_name="org.freedesktop.systemd1",
            interface="org.freedesktop.systemd1.Manager",
        )
        mask = bytes([1 << node])
        self._limits = [
            ("MemoryMax", ("t", size)),
            ("MemoryMin", ("t", size)),
            ("AllowedMemoryNodes", ("ay", mask)),
            ("AllowedCPUs", ("ay", mask)),
        ]

    def make_and_stop(self) -> None:
        """Start a transient slice and stop it, and wait for both."""
        name = "zbus.slice"
        group = _CGROUPS / name
        self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "replace", self._limits, []))
        # Looking at the group costs less than to subscribe to the signals of all jobs.
        _poll(lambda: (group / "memory.min").exists())
        self._call("StopUnit", "ss", (name, "replace"))
        _poll(lambda: not group.exists())

    def _call(self, method: str, signature: str, body: tuple[Any, ...]) -> None:
        message = self._new_call(self._manager, method, signature, body)
        reply = self._bus.send_and_get_reply(message, timeout=60)
        if reply.header.message_type.name == "error":
            raise RuntimeError(method, reply.body)


def _poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(_JOB_POLL_SECONDS)


def idle(request: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Watch processes for a while that have nothing to do, side by side.

    `pids` maps names to processes; "python" is added: a bare event loop, which nothing wakes.
    """
    loop = "import asyncio, sys; print(flush=True); asyncio.run(asyncio.sleep(3600))"
    with subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) as bare:
        assert bare.stdout is not None
        bare.stdout.readline()
        pids = {**request["pids"], "python": bare.pid}
        time.sleep(request["settle"])
        before = {name: _spent(pid) for name, pid in pids.items()}
        time.sleep(request["seconds"])
        after = {name: _spent(pid) for name, pid in pids.items()}
        memory = {name: _memory(pid) for name, pid in pids.items()}
        bare.kill()
    return {
        name: {key: after[name][key] - value for key, value in before[name].items()} | memory[name]
        for name in pids
    }


def _spent(pid: int) -> dict[str, float]:
    """What the threads of a process have used so far (proc_pid_stat(5), proc_pid_status(5))."""
    spent = {"cpu": 0.0, "wakeups": 0.0, "preempted": 0.0}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # The first number is se.sum_exec_runtime, in nanoseconds (sched-stats.rst).
        spent["cpu"] += int((thread / "schedstat").read_text().split()[0]) / 1e9
        status = _fields((thread / "status").read_text())
        spent["wakeups"] += status["voluntary_ctxt_switches"]
        spent["preempted"] += status["nonvoluntary_ctxt_switches"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    spent["cpu_ticks"] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def _memory(pid: int) -> dict[str, float]:
    """Resident and proportional memory in bytes, and the number of threads."""
    rollup = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return {"rss": rollup["Rss"] * 1024, "pss": rollup["Pss"] * 1024, "threads": threads}


def _fields(text: str) -> dict[str, int]:
    pairs = (line.partition(":") for line in text.splitlines())
    words = ((name, rest.split()) for name, _, rest in pairs)
    return {name: int(found[0]) for name, found in words if found and found[0].isdigit()}


def dma_buffer(request: Mapping[str, Any]) -> Samples:
    """Time buffers of a reservation, and huge pages that anybody can map, which need a pool.

    Of each of `sizes` one is had, touched and given back; then the largest is written to.
    """
    from zoned.client import allocate

    name, page = request["reservation"], request["page"]

    def touch(memory: mmap.mmap) -> None:
        for place in range(0, len(memory), page):
            memory[place] = 1

    def lease(size: int) -> None:
        with allocate(size, reservation=name) as buffer:
            touch(buffer.map())

    def plain(size: int) -> None:
        with _huge_pages(size) as memory:
            touch(memory)

    contestants: dict[str, Callable[[], None]] = {}
    for size in request["sizes"]:
        contestants[f"lease-{size}"] = functools.partial(lease, size)
        contestants[f"mmap-{size}"] = functools.partial(plain, size)
    samples = rounds_of(request["rounds"], contestants)
    largest = max(request["sizes"])
    content = bytes(largest)
    with allocate(largest, reservation=name) as buffer, _huge_pages(largest) as memory:
        lent = buffer.map()
        writers: dict[str, Callable[[], None]] = {
            "write-lease": lambda: lent.__setitem__(slice(None), content),
            "write-mmap": lambda: memory.__setitem__(slice(None), content),
        }
        return samples | rounds_of(request["rounds"], writers)


def _huge_pages(size: int) -> Any:
    map_hugetlb = 0x40000  # linux/mman.h
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | map_hugetlb)


KINDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "commands": commands,
    "create_destroy": create_destroy,
    "dma_buffer": dma_buffer,
    "idle": idle,
}


def main() -> None:
    """Take the samples that the arguments and standard input ask for."""
    json.dump(KINDS[sys.argv[1]](json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
