# SPDX-License-Identifier: Apache-2.0
"""Watching processes for their end."""

from __future__ import annotations

import errno
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zoned.kernel import pidfd
from zoned.kernel.pidfd import Watch
from zoned.kernel.process import find
from zoned.kernel.root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process


@pytest.fixture(params=["pidfd", "no pidfd"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    if request.param == "no pidfd":

        def missing(pid: int) -> int:
            raise OSError(errno.ENOSYS, f"pidfd_open {pid}")

        monkeypatch.setattr(pidfd, "pidfd_open", missing)
    with Watch(Root()) as found:
        yield found


def test_a_process_until_its_end(watch: Watch, child: subprocess.Popen[bytes]) -> None:
    process = find(Root(), child.pid)
    assert watch.alive(process)
    assert watch.alive(process)
    child.kill()
    child.wait()
    assert not watch.alive(process)
    assert not watch.alive(process)


def test_another_process_of_that_number_is_not_it(
    watch: Watch, child: subprocess.Popen[bytes]
) -> None:
    process = find(Root(), child.pid)
    assert not watch.alive(replace(process, start_time=process.start_time - 1))
    assert watch.alive(process)


def test_nothing_stays_open(child: subprocess.Popen[bytes]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    process = find(Root(), child.pid)
    with Watch(Root()) as watch:
        watch.alive(process)
        watch.alive(replace(process, start_time=1))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
