# SPDX-License-Identifier: Apache-2.0
"""The program that runs the lab's commands, here beside the tests instead of in a guest."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.lab.guest_programs.runner import PYTHON
from tests.lab.harness.agent import Finished
from tests.lab.harness.errors import LabError, LabLost
from tests.lab.harness.loop import Loop
from tests.lab.harness.runner import Runner
from zoned import __version__

T = TypeVar("T")
ENVIRONMENT = {"PATH": os.environ["PATH"], "COLOUR": "red"}
_SERVE = """
import asyncio, os, sys
from tests.lab.guest_programs import runner
os.set_blocking(int(sys.argv[1]), False)
runner.load_all()
asyncio.run(runner.serve(int(sys.argv[1])))
"""


class Beside:
    """A runner in a process of its own."""

    def __init__(self, program: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.program = program
        self.loop = Loop()
        self.runner = Runner(channel)
        self.do(self.runner.connect(60))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work, 60)

    def start(self, *argv: str, stdin: bytes = b"", cwd: str | None = None) -> int:
        return self.do(self.runner.start(list(argv), ENVIRONMENT, stdin, None, cwd))

    def run(self, *argv: str, stdin: bytes = b"", cwd: str | None = None) -> Finished:
        return self.do(self.runner.wait(self.start(*argv, stdin=stdin, cwd=cwd)))


@pytest.fixture(scope="module")
def beside() -> Iterator[Beside]:
    mine, its = socket.socketpair()
    command = [sys.executable, "-c", _SERVE, str(its.fileno())]
    with (
        its,
        subprocess.Popen(command, pass_fds=[its.fileno()], stderr=subprocess.DEVNULL) as program,
    ):
        found = Beside(program, mine)
        yield found
        found.do(found.runner.close())
        found.loop.close()
        program.kill()


def test_what_a_command_says_and_how_it_ends(beside: Beside) -> None:
    done = beside.run("sh", "-c", "echo out; echo err >&2; echo $COLOUR$HOME; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\nred\n", b"err\n")
    assert beside.run("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    assert beside.run("no-such-command").returncode == 127
    assert beside.run("pwd", cwd="/usr").stdout == b"/usr\n"
    assert beside.run("cat", stdin=b"in").stdout == b"in"


def test_lines_of_python_run_in_a_fork(beside: Beside) -> None:
    lines = "import os, sys; from zoned import __version__; print(os.getppid(), sys.argv[1:])"
    done = beside.run(PYTHON, "-c", lines, "3", "a b")
    assert done.stdout.decode() == f"{beside.program.pid} ['3', 'a b']\n"
    done = beside.run(PYTHON, "-c", "import sys; sys.exit('no way')")
    assert (done.returncode, done.stderr) == (1, b"no way\n")
    done = beside.run(PYTHON, "-c", "1 / 0")
    assert done.returncode == 1
    assert b"ZeroDivisionError" in done.stderr


def test_the_watch_runs_in_a_fork(beside: Beside) -> None:
    module = "tests.lab.guest_programs.watch"
    told = beside.run("env", "A=b", "no-such-python", "-m", module, "anonymous", "0")
    who = [name for name in json.loads(told.stdout) if name.startswith(f"{beside.program.pid} ")]
    assert len(who) == 1


def test_much_text(beside: Beside) -> None:
    text = os.urandom(1 << 20)
    assert beside.run("cat", stdin=text).stdout == text


def test_zonectl_is_loaded_and_runs_in_a_process_of_its_own(beside: Beside) -> None:
    done = beside.run("zonectl", "--version")
    assert done.stdout.decode() == f"zonectl, version {__version__}\n"
    done = beside.run("zonectl", "create")
    assert (done.returncode, b"Missing argument" in done.stderr) == (2, True)
    done = beside.run("zonectl", "--socket", "/no/such", "list")
    assert (done.returncode, done.stderr.split()[1]) == (3, b"[no-daemon]")
    assert beside.program.poll() is None


def test_zonectl_that_becomes_another_program_is_one_of_its_own(
    beside: Beside, tmp_path: Path
) -> None:
    (tmp_path / "zonectl").write_text('#!/bin/sh\necho "$@" $COLOUR\n')
    (tmp_path / "zonectl").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{ENVIRONMENT['PATH']}", "COLOUR": "blue"}
    for words in ("run db -- env", "dma alloc --size 2MiB"):
        argv = ["zonectl", *words.split()]
        pid = beside.do(beside.runner.start(argv, environment, b"", None, None))
        assert beside.do(beside.runner.wait(pid)).stdout.decode() == f"{words} blue\n"


def test_several_at_once(beside: Beside) -> None:
    sleeper = beside.start("sleep", "1000")
    assert beside.run("echo", "hello").stdout == b"hello\n"
    assert os.getsid(sleeper) == sleeper
    os.kill(sleeper, signal.SIGKILL)
    assert beside.do(beside.runner.wait(sleeper)).returncode == -signal.SIGKILL


def test_the_end_is_that_of_all_who_could_write(beside: Beside) -> None:
    done = beside.run("sh", "-c", "(sleep 0.2; echo late) &")
    assert done.stdout == b"late\n"


def test_files_are_read_without_a_command(beside: Beside, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("läuft\n")
    assert beside.do(beside.runner.read(str(tmp_path / "text"))) == "läuft\n"
    with pytest.raises(LabError, match="No such file"):
        beside.do(beside.runner.read(str(tmp_path / "none")))
    assert beside.do(beside.runner.exists(str(tmp_path / "text")))
    assert not beside.do(beside.runner.exists(str(tmp_path / "none")))


def test_a_runner_that_goes_away_is_a_lost_lab() -> None:
    mine, its = socket.socketpair()
    with its, subprocess.Popen(["sleep", "1000"], pass_fds=[its.fileno()]) as program:
        loop = Loop()
        runner = Runner(mine)
        its.send(b'{"id": 0, "pid": 1}\n')
        loop.run(runner.connect(60), 60)
        waiting = runner.start(["true"], {}, b"", None, None)
        program.kill()
        program.wait()
        its.close()
        with pytest.raises(LabLost, match="went away"):
            loop.run(waiting, 60)
        loop.run(runner.close(), 60)
        loop.close()
