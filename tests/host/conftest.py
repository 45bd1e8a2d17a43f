# SPDX-License-Identifier: Apache-2.0
"""What the tests on this machine share."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host.daemon import Daemon, groups_left, missing, remove_groups
from zoned.kernel.root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def page_lists(root_only: None) -> None:
    """See that the kernel has lists of its page frames, and shows them."""
    if not (Root().proc / "kpageflags").exists():
        pytest.skip("this kernel has no kpageflags")


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
