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
