# SPDX-License-Identifier: Apache-2.0
"""A guest that dies is an error of the lab, and the end of the session."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.harness.plugin import LAB_LOST

PROJECT = Path(__file__).parents[3]

TESTS = """
import pytest
from tests.lab.harness.errors import LabLost

@pytest.fixture
def gone():
    raise LabLost("the guest went away; the console ends with: Kernel panic")

def test_before(): pass
def test_{where}: raise LabLost("the guest went away; the console ends with: Kernel panic")
def test_after(): pass
"""


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a pytest of their own, with the lab's plugin."""
    path = folder / "test_sample.py"
    path.write_text(text)
    options = [
        "-p",
        "tests.lab.harness.plugin",
        "-p",
        "no:cacheprovider",
        "-ra",
        f"--rootdir={folder}",
    ]
    command = [sys.executable, "-m", "pytest", *options, str(path)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("where", ["call()", "setup(gone)"])
def test_lost_lab_stops_the_session(tmp_path: Path, where: str) -> None:
    done = run(tmp_path, TESTS.replace("{where}", where))
    assert done.returncode == LAB_LOST, done.stdout
    assert "1 passed, 1 error" in done.stdout
    assert "failed" not in done.stdout.splitlines()[-1]
    assert "Kernel panic" in done.stdout
    assert "lab lost in" in done.stdout


def test_failed_test_stays_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_x(): assert False")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed" in done.stdout


GUEST = """
import pytest
from tests.lab.harness.guest import Guest

class Fake(Guest):
    ended = False
    def __init__(self): pass
    def log(self): {log}

@pytest.fixture
def guest(): return Fake()

@pytest.fixture
def zoned_guest(guest): return guest

def test_x(zoned_guest): assert False
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("return 'zoned: killed by the watchdog'", "zoned: killed by the watchdog"),
        ("from tests.lab.harness.errors import LabError; raise LabError('deaf')", "deaf"),
    ],
)
def test_failed_test_tells_what_its_guest_logged(tmp_path: Path, log: str, said: str) -> None:
    done = run(tmp_path, GUEST.replace("{log}", log))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    report = done.stdout.partition("log of the guest")[2]
    assert said in report, done.stdout
    assert "log of the guest" not in report


def test_guest_that_was_ended_is_not_asked(tmp_path: Path) -> None:
    text = GUEST.replace("{log}", "raise RuntimeError('Event loop is closed')")
    done = run(tmp_path, text.replace("ended = False", "ended = True"))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "log of the guest" not in done.stdout
