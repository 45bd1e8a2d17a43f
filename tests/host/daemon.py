# SPDX-License-Identifier: Apache-2.0
"""A real daemon on this machine, with zones below a group of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoned.kernel.cgroup.mounts import cgroup_mounts
from zoned.kernel.cgroup.tree import CgroupFs, kill_tree, leaves_first
from zoned.kernel.root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
GROUP = f"zoned-test-{os.getpid()}"
LIMIT = 60.0
MIB = 1 << 20

# Touches its memory, says so, and waits for its input to end.
HOLD = (
    "import sys; held = bytearray(b'x') * (int(sys.argv[1]) << 20);"
    "print('full', flush=True); sys.stdin.read()"
)


def missing() -> str | None:
    """Return why there can be no zones here, None where there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = {"cpuset", "memory"} - cgroup_mounts(Root()).v1.keys()
    return f"no cgroup v1 hierarchy for {', '.join(sorted(absent))}" if absent else None


def tops() -> list[Path]:
    """Return the directories above all zones of the test, in both hierarchies."""
    mounts = cgroup_mounts(Root()).v1
    return [mounts[name] / GROUP for name in ("cpuset", "memory")]


def groups_left() -> list[Path]:
    """Return the cgroups of the test that are there."""
    return [group for top in tops() for group in leaves_first(top)]


def remove_groups() -> None:
    """End what runs in the test's cgroups and remove them."""
    for top in tops():
        for group in leaves_first(top):
            kill_tree(CgroupFs(), group)
            group.rmdir()


def cgroup_of(pid: int) -> str:
    """Return /proc/PID/cgroup."""
    return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")


def limits_of(zone: str) -> dict[str, str]:
    """Return a zone's limits as the kernel shows them."""
    cpuset, memory = (top / zone for top in tops())
    files = [
        cpuset / "cpuset.mems",
        cpuset / "cpuset.cpus",
        cpuset / "cpuset.memory_migrate",
        memory / "memory.limit_in_bytes",
        memory / "memory.soft_limit_in_bytes",
    ]
    return {file.name: file.read_text(encoding="utf-8").strip() for file in files}


class Daemon:
    """The command zoned, and zonectl for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self.state = folder / "state"
        self.policy = folder / "config/zones.d"
        self.policy.mkdir(parents=True)
        self.process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        options = {
            "--config": self.policy.parent,
            "--socket": self.socket,
            "--state": self.state,
            "--group": GROUP,
        }
        words = [str(word) for pair in options.items() for word in pair]
        return [sys.executable, "-m", "zoned.daemon.main", "run", *words]

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        address = self.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(address))
            with (self.folder / "log").open("a") as log:
                self.process = subprocess.Popen(
                    self.command(),
                    cwd=CHECKOUT,
                    env={**os.environ, "NOTIFY_SOCKET": str(address)},
                    stderr=log,
                    text=True,
                )
            self._await_ready(notified, self.process)
        address.unlink()

    def _await_ready(self, notified: socket.socket, process: subprocess.Popen[str]) -> None:
        ended = os.pidfd_open(process.pid)
        try:
            ready, _, _ = select.select([notified.fileno(), ended], [], [], LIMIT)
        finally:
            os.close(ended)
        assert notified.fileno() in ready, f"it is not ready:\n{self.log()}"
        assert "READY=1" in notified.recv(4096).decode().splitlines()

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal and return its status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(LIMIT)
        self.process = None
        return status

    def zonectl(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run zonectl to its end."""
        return subprocess.run(
            [*self.words(), *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            **more,
        )

    def words(self) -> list[str]:
        """Return the command line of zonectl, without a command."""
        return [sys.executable, "-m", "zoned.cli.main", "--socket", str(self.socket)]

    def well(self, *arguments: str) -> str:
        """Run zonectl, which must succeed; return what it prints."""
        found = self.zonectl(*arguments)
        assert (found.returncode, found.stderr) == (0, ""), f"{found.stderr}\n{self.log()}"
        return found.stdout

    def refused(self, *arguments: str) -> str:
        """Run zonectl, which must fail with one error; return its code."""
        found = self.zonectl(*arguments)
        assert (found.returncode != 0, found.stdout) == (True, "")
        first, *rest = found.stderr.splitlines()
        assert first.startswith("zonectl: [")
        assert all("Traceback" not in line for line in rest)
        return first.removeprefix("zonectl: [").partition("]")[0]

    def zones(self) -> list[dict[str, Any]]:
        """Return what `list` tells."""
        found: list[dict[str, Any]] = json.loads(self.well("list", "-o", "json"))
        return found

    def show(self, zone: str) -> dict[str, Any]:
        """Return what `show` tells."""
        found: dict[str, Any] = json.loads(self.well("show", zone, "-o", "json"))
        return found

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method without zonectl, which takes longer to start; it must succeed."""
        with self.connect() as connection:
            connection.sendall(request(method, **parameters))
            found = reply(connection)
        assert "error" not in found, found
        result: dict[str, Any] = found.get("parameters", {})
        return result

    def connect(self) -> socket.socket:
        """Return a raw connection."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(LIMIT)
        connection.connect(str(self.socket))
        return connection


def names_of(zones: list[dict[str, Any]]) -> list[str]:
    """Return the names of zones."""
    return [zone["name"] for zone in zones]


def request(method: str, **parameters: object) -> bytes:
    """Return a call as it travels."""
    call = {"method": f"io.zoned.{method}", "parameters": parameters}
    return json.dumps(call).encode() + b"\0"


def reply(connection: socket.socket) -> dict[str, Any]:
    """Return the next message."""
    data = b""
    while not data.endswith(b"\0"):
        more = connection.recv(1)
        assert more, f"hung up after {data!r}"
        data += more
    found: dict[str, Any] = json.loads(data[:-1])
    return found


@contextlib.contextmanager
def as_user(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """Be somebody else to those who are connected to meanwhile."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@contextlib.contextmanager
def holding(mib: int, prefix: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a program that has touched so much memory, and end it at last."""
    process = subprocess.Popen(
        [*(prefix or []), sys.executable, "-c", HOLD, str(mib)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        yield process
    finally:
        process.kill()
        process.communicate()
