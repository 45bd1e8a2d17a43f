# SPDX-License-Identifier: Apache-2.0
"""Runs commands for the lab, told over a virtio port: JSON, a line each way for each thing said.

In an emulated machine most of what a command costs is that Python starts and imports. So this one
has all of zonectl loaded, and becomes it in a fork; as it does with lines for zoned's own Python
(`/opt/zoned/bin/python -c`), and with what looks on for the tests. Everything else is executed as
usual: above all what holds memory, which must have none in common with anybody.

To it: {"id", "argv", "env", "stdin", "cwd", "user"}, or {"id", "read": path}, or {"id", "exists":
path}. From it, at once: {"id", "pid"}, {"id", "out"}, {"id", "exists"} or {"id", "error"}; and
{"id", "status", "out", "err"} when the command and all that hold its output open have ended. Bytes
are in base64.
"""

import asyncio
import base64
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import pwd
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.guest_programs import watch

Main = Callable[[], None]

PYTHON = "/opt/zoned/bin/python"
PORT = "/dev/virtio-ports/org.zoned.lab"
_WATCH = "tests.lab.guest_programs.watch"
_CHUNK = 1 << 16
_PACKAGES = ("zoned.model", "zoned.api", "zoned.policy", "zoned.cli")
_LOADED_LATE = (
    "zoned.kernel.block_outlook",
    "rich.console",
    "rich.markup",
    "rich.progress",
    "rich.table",
    "rich.text",
    "yaml",
)


def load_all() -> None:
    """Import what zonectl may want."""
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    for name in _LOADED_LATE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def become(main: Main, said: dict[str, Any], ends: tuple[int, int, int]) -> None:
    """Be a command of which all is loaded; for a new process, never returns."""
    status = 1
    try:
        os.setsid()
        for number, end in enumerate(ends):
            os.dup2(end, number)
        os.closerange(len(ends), 1024)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        unprotect(os.getpid())
        os.environ.clear()
        os.environ.update(said["env"])
        os.chdir(said["cwd"] or "/")
        if said["user"]:
            user, group, groups = ids_of(said["user"])
            os.setgroups(groups)
            os.setgid(group)
            os.setuid(user)
        status = status_of(main)
    except BaseException:  # whatever it is, the parent's loop must not go on here
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


def loaded(argv: list[str]) -> Main | None:
    """Return what does a command of which all is loaded; None where it has to be executed."""
    if argv[0] == "zonectl" and not becomes_another(argv):
        return functools.partial(run_zonectl, argv[1:])
    if argv[:2] == [PYTHON, "-c"]:
        return functools.partial(run_lines, argv[2], argv[3:])
    if argv[0] == "env" and _WATCH in argv:
        return functools.partial(run_watch, argv[argv.index(_WATCH) + 1 :])
    return None


def becomes_another(argv: list[str]) -> bool:
    """Tell whether a zonectl becomes another program: that gets the environment that the process
    was started with, which is the runner's in a fork.
    """
    return "run" in argv[1:3] or "alloc" in argv[1:4]


def run_zonectl(words: list[str]) -> None:
    """Do what /usr/local/bin/zonectl does."""
    from zoned.cli.main import main

    sys.argv = ["/usr/local/bin/zonectl", *words]
    main()


def run_lines(lines: str, words: list[str]) -> None:
    """Run lines of Python."""
    sys.argv = ["-c", *words]
    exec(compile(lines, "<string>", "exec"), {"__name__": "__main__"})


def run_watch(words: list[str]) -> None:
    """Watch the machine."""
    sys.argv = [_WATCH, *words]
    watch.main()


def status_of(main: Main) -> int:
    """Run a main function; return the exit status."""
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def other(said: dict[str, Any], ends: tuple[int, int, int]) -> int:
    """Start any other command; return its process id. Raises OSError where there is none."""
    user, group, groups = ids_of(said["user"]) if said["user"] else (None, None, None)
    process = subprocess.Popen(
        said["argv"],
        stdin=ends[0],
        stdout=ends[1],
        stderr=ends[2],
        env=said["env"],
        cwd=said["cwd"] or "/",
        user=user,
        group=group,
        extra_groups=groups,
        start_new_session=True,
    )
    # Whoever watches the process by its descriptor gets its end, too.
    process.returncode = 0
    unprotect(process.pid)
    return process.pid


def unprotect(pid: int) -> None:
    """Let the kernel kill a process for want of memory.

    The runner is kept from that. If children were, a program that goes over its limit would have
    the kernel look for another victim for ever.
    """
    with contextlib.suppress(OSError):  # it may have ended already
        Path(f"/proc/{pid}/oom_score_adj").write_text("0")


def ids_of(name: str) -> tuple[int, int, list[int]]:
    """Return the ids of a user: its own, its group's, those of all its groups."""
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid)


class Runner:
    """One port, any number of commands at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._said = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self.over = self._loop.create_future()
        self._loop.add_reader(port, self._hear)

    def _hear(self) -> None:
        try:
            more = os.read(self._port, _CHUNK)
        except BlockingIOError:
            return
        self._said += more
        while (end := self._said.find(b"\n")) >= 0:
            line = bytes(self._said[:end])
            del self._said[: end + 1]
            self._do(json.loads(line))

    def _do(self, said: dict[str, Any]) -> None:
        if "read" in said:
            self._read(said)
            return
        if "exists" in said:
            self.say(id=said["id"], exists=Path(said["exists"]).exists())
            return
        task = self._loop.create_task(self._run(said))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read(self, said: dict[str, Any]) -> None:
        try:
            text = Path(said["read"]).read_bytes()
        except OSError as error:
            self.say(id=said["id"], error=f"{said['read']}: {error.strerror}")
        else:
            self.say(id=said["id"], out=_text(text))

    async def _run(self, said: dict[str, Any]) -> None:
        into = os.memfd_create("stdin")
        os.write(into, base64.b64decode(said["stdin"]))
        os.lseek(into, 0, os.SEEK_SET)
        out, err = os.pipe(), os.pipe()
        pid = self._started(said, (into, out[1], err[1]))
        for end in (into, out[1], err[1]):
            os.close(end)
        self.say(id=said["id"], pid=pid)
        texts = self._all_of(out[0]), self._all_of(err[0])
        status, told, failed = await asyncio.gather(self._end_of(pid), *texts)
        self.say(id=said["id"], status=status, out=_text(told), err=_text(failed))

    def _started(self, said: dict[str, Any], ends: tuple[int, int, int]) -> int:
        main = loaded(said["argv"])
        if main is None:
            try:
                return other(said, ends)
            except OSError as error:
                os.write(ends[2], f"{error.filename}: {error.strerror}\n".encode())
                said = {**said, "argv": ["sh", "-c", "exit 127"], "cwd": None, "user": None}
                return other(said, ends)
        pid = os.fork()
        if pid == 0:
            become(main, said, ends)
        return pid

    async def _all_of(self, end: int) -> bytes:
        text = bytearray()
        over = self._loop.create_future()

        def more() -> None:
            chunk = os.read(end, _CHUNK)
            text.extend(chunk)
            if not chunk:
                self._loop.remove_reader(end)
                os.close(end)
                over.set_result(None)

        self._loop.add_reader(end, more)
        await over
        return bytes(text)

    async def _end_of(self, pid: int) -> int:
        over = self._loop.create_future()
        handle = os.pidfd_open(pid)

        def ended() -> None:
            self._loop.remove_reader(handle)
            os.close(handle)
            over.set_result(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        self._loop.add_reader(handle, ended)
        return int(await over)

    def say(self, **what: Any) -> None:
        """Say one thing."""
        left = memoryview(json.dumps(what).encode() + b"\n")
        while left:
            try:
                left = left[os.write(self._port, left) :]
            except BlockingIOError:
                # The port takes some 32 KiB at a time; the other side reads all the time.
                os.sched_yield()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


async def serve(port: int) -> None:
    """Say that all is loaded, then do as told for ever."""
    runner = Runner(port)
    runner.say(id=0, pid=os.getpid())
    await runner.over


if __name__ == "__main__":
    load_all()
    asyncio.run(serve(os.open(PORT, os.O_RDWR | os.O_NONBLOCK)))
