# SPDX-License-Identifier: Apache-2.0
"""What the tests on this machine share."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host.daemon import Daemon, groups_left, missing, remove_groups

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="zoned-test-") as folder:
        daemon = Daemon(Path(folder))
        try:
            daemon.start()
            yield daemon
            assert daemon.end() == 0
        finally:
            if daemon.process is not None:
                daemon.end(signal.SIGKILL)
            remove_groups()


@pytest.fixture
def daemon(running: Daemon) -> Iterator[Daemon]:
    """Return the daemon, without zones; after the test nothing may be left."""
    yield running
    if running.process is None:
        running.start()
    for file in running.policy.iterdir():
        file.unlink()
    running.call("Policy.Reload")
    assert running.call("Reset") == {"left": []}
    assert groups_left() == []
    assert "Traceback" not in running.log()
