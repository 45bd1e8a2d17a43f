# SPDX-License-Identifier: Apache-2.0
"""A booted guest, as tests use it."""

import contextlib
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.lab.harness.agent import Agent, Finished
from tests.lab.harness.errors import CommandFailed, LabError, LabLost
from tests.lab.harness.qemu import Machine
from tests.lab.harness.runner import Runner

PYTHON = "/opt/zoned/bin/python"
"""Python with zoned and its libraries, in a guest that has it installed."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
_KILL_SECONDS = 10
_RUNNER_SECONDS = 120
_LOG_SECONDS = 60
_LOG_LINES = 40
_KERNEL_LINES = 15

T = TypeVar("T")
Completed = subprocess.CompletedProcess[str]


class Process:
    """A command that `Guest.start` left running. Its group has its own process id."""

    def __init__(self, guest: "Guest", argv: Sequence[str], pid: int, way: Agent | Runner) -> None:
        self.argv = list(argv)
        self.pid = pid
        self.done: Completed | None = None
        self._guest = guest
        self._way = way

    def wait(self, timeout: float = 120) -> Completed:
        """Wait for its end; after `timeout` seconds raise subprocess.TimeoutExpired.

        As with subprocess.run, its end includes that of children with the same output.
        """
        if self.done is None:
            work = self._way.wait(self.pid)
            try:
                self.done = _completed(self.argv, self._guest.run_on_loop(work, timeout))
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.argv, timeout) from None
        return self.done

    def signal(self, number: int) -> None:
        """Send a signal to the command alone, not to its children; it may be gone."""
        self._guest.run(["kill", f"-{number}", str(self.pid)])

    def kill(self) -> Completed:
        """Kill the command with its process group, and return how it ended."""
        self._guest.run(["kill", "-KILL", "--", f"-{self.pid}"])
        return self.wait(_KILL_SECONDS)


class Guest:
    """A guest after its boot; use it as a context manager, or call `close`.

    Every method raises LabLost when the guest is gone. Commands run as children of the guest
    agent, or of the lab's runner, each in a session of its own, with a small fixed environment, in
    the cgroup of that service. Several can run at once, also from several threads.
    """

    def __init__(self, machine: Machine, *, boot_seconds: float = 300) -> None:
        self.machine = machine
        self.topology = machine.topology
        self.share = machine.share
        self.on_reclaim: list[Callable[[Guest], None]] = []
        self.facts: dict[str, Any] = {}
        self.ended = False
        self._running: list[Process] = []
        self._runner: Runner | None = None
        self._runner_command: Sequence[str] = ()
        try:
            self.boot_state = self._wait_for_boot(boot_seconds)
        except BaseException:
            machine.close()
            raise

    def _wait_for_boot(self, seconds: float) -> str:
        ping = self.machine.agent.call("guest-ping", patience=seconds)
        self.run_on_loop(ping, None)
        # An early start of the agent can come before systemd answers on D-Bus.
        return self.run(
            ["systemctl", "is-system-running", "--wait"], timeout=seconds
        ).stdout.strip()

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run has for it
        timeout: float = 120,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Completed:
        """Run a command to its end, as subprocess.run does with captured text.

        `timeout` is in seconds; then the command's process group is killed and
        subprocess.TimeoutExpired raised. A status of 127 also means that there is no such
        command. `user` runs it with the ids and groups of that user, without a login.
        """
        process = self.start(argv, input=input, user=user, env=env, cwd=cwd)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.kill()
            raise
        finally:
            self._running.remove(process)

    def check(self, argv: Sequence[str], **options: Any) -> str:
        """Run a command that must succeed; return its output, else raise CommandFailed."""
        done = self.run(argv, **options)
        if done.returncode:
            raise CommandFailed(done)
        return done.stdout

    def shell(self, script: str, **options: Any) -> str:
        """Run lines of sh that must succeed, each of them; return their output."""
        return self.check(["sh", "-euc", script], **options)

    def python(self, lines: str, *words: object) -> str:
        """Run lines of Python that may import zoned, which is installed; return their output."""
        return self.check([PYTHON, "-c", lines, *map(str, words)])

    def start(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - as in run
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Process:
        """Start a command and return at once. `reclaim` kills what is still running then."""
        process = self._started(list(argv), {**_ENVIRONMENT, **(env or {})}, input, user, cwd)
        self._running.append(process)
        return process

    def _started(
        self,
        argv: list[str],
        env: dict[str, str],
        input: str | None,  # noqa: A002 - as in run
        user: str | None,
        cwd: str | None,
    ) -> Process:
        stdin = (input or "").encode()
        if self._runner is not None:
            work = self._runner.start(argv, env, stdin, user, cwd)
            return Process(self, argv, self.run_on_loop(work, None), self._runner)
        # The agent is kept from the OOM killer, and children inherit that: a program that goes over
        # its limit would have the kernel look for another victim for ever.
        prefix = ["/usr/bin/setsid", "choom", "-n", "0", "--"]
        if user is not None:
            group = self.check(["id", "-g", user]).strip()
            prefix += ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups"]
        if cwd is not None:
            prefix += ["env", f"--chdir={cwd}"]
        agent = self.machine.agent
        work = agent.start([*prefix, *argv], env, stdin)
        return Process(self, argv, self.run_on_loop(work, None), agent)

    def use_runner(self, command: Sequence[str]) -> None:
        """Run commands by the lab's own program from now on, which `command` starts as a service.

        Many times as fast as by the agent, above all zonectl.
        """
        service = ["systemd-run", "--unit=lab-runner", "--property=OOMScoreAdjust=-1000"]
        self.check([*service, "--property=OOMPolicy=continue", "--", *command])
        self.run_on_loop(self.machine.runner.connect(_RUNNER_SECONDS), None)
        self._runner, self._runner_command = self.machine.runner, command

    def read(self, path: str) -> str:
        """Return the text of a file in the guest."""
        if self._runner is not None:
            return self.run_on_loop(self._runner.read(path), None)
        return self.check(["cat", "--", path])

    def write(self, path: str, text: str) -> None:
        """Write a file in the guest with one write(2), as kernel files want it (<= 128 KiB)."""
        self.check(["sh", "-c", 'exec cat > "$1"', "sh", path], input=text)

    def exists(self, path: str) -> bool:
        """Tell whether there is such a path in the guest."""
        if self._runner is not None:
            return self.run_on_loop(self._runner.exists(path), None)
        return self.run(["test", "-e", path]).returncode == 0

    def log(self) -> str:
        """Return what zoned and the kernel said last, for a test that failed."""
        script = (
            f"journalctl --no-pager -o short-monotonic -u zoned -n {_LOG_LINES};"
            f" dmesg | tail -n {_KERNEL_LINES}"
        )
        return self.run(["sh", "-c", script], timeout=_LOG_SECONDS).stdout

    def qmp(self, command: str, **words: Any) -> Any:
        """Execute a QMP command; see Machine.qmp."""
        return self.machine.qmp(command, **words)

    def plug_dimm(self, name: str, *, node: int, size: int) -> None:
        """Plug a DIMM of `size` MiB into a node; returns before the kernel has seen it."""
        backend = {"qom-type": "memory-backend-ram", "id": f"{name}-ram", "size": size << 20}
        self.qmp("object-add", **backend)
        self.qmp("device_add", driver="pc-dimm", id=name, memdev=f"{name}-ram", node=node)

    def unplug_dimm(self, name: str, timeout: float = 60) -> None:
        """Pull a DIMM and wait until the kernel has let it go.

        Raises LabError when the kernel refuses, which is when one of its blocks cannot go
        offline.
        """
        with self.machine.events("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") as news:
            self.qmp("device_del", id=name)
            event: Mapping[str, Any] = {"data": {}}
            while event["data"].get("device") != name:
                event = self.machine.next_event(news, timeout)
        if event["event"] != "DEVICE_DELETED":
            msg = f"the guest kept {name}: {event['data']}"
            raise LabError(msg)
        self.qmp("object-del", id=f"{name}-ram")

    def keep_disk(self) -> Path:
        """Return a file with what is on the disk now; it is gone with the guest."""
        agent = self.machine.agent
        self.run_on_loop(agent.call("guest-fsfreeze-freeze"), None)
        try:
            return self.machine.keep_disk()
        finally:
            self.run_on_loop(agent.call("guest-fsfreeze-thaw"), None)

    def reboot(self, seconds: float = 300) -> None:
        """Have the guest start anew, with what is on its disk; returns when it is up again."""
        self.qmp("set-action", reboot="reset")
        with self.machine.events("RESET") as news:
            self.run(["systemctl", "reboot", "--no-block"])
            self.machine.next_event(news, seconds)
        self._running.clear()
        command, self._runner, self._runner_command = self._runner_command, None, ()
        self.boot_state = self._wait_for_boot(seconds)
        if command:
            self.use_runner(command)

    def run_on_loop(self, work: Coroutine[Any, Any, T], timeout: float | None) -> T:
        """Run a coroutine of the agent; a LabLost gets the console's end added."""
        try:
            return self.machine.loop.run(work, timeout)
        except LabLost as error:
            msg = f"{error}{self.machine.tail()}"
            raise LabLost(msg) from error

    def reclaim(self) -> None:
        """Make the guest clean for the next test: end left-overs, call each `on_reclaim`."""
        self.end_left_overs()
        for action in self.on_reclaim:
            action(self)

    def end_left_overs(self) -> None:
        """Kill what was started and still runs."""
        left, self._running = self._running, []
        for process in left:
            if process.done is None:
                process.kill()

    def close(self) -> None:
        """End the guest, if it has not been; what it had on its disk is gone."""
        if not self.ended:
            self.ended = True
            self.machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _completed(argv: list[str], finished: Finished) -> Completed:
    stdout = finished.stdout.decode(errors="replace")
    stderr = finished.stderr.decode(errors="replace")
    return Completed(argv, finished.returncode, stdout, stderr)
