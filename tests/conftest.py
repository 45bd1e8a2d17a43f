# SPDX-License-Identifier: Apache-2.0
"""How tests are shared out among processes (xdist): what needs the same machine stays together."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_RELEASES = ("bookworm", "trixie")
_APART = {
    "tests/lab/test_install": ", from nothing",
    "tests/lab/test_base_machines": ", other machines",
    "tests/lab/test_dma": ", other machines",
    "tests/lab/test_newest_kernel": ", newest kernel",
}
"""Files of the lab that are no part of their release's share, by how their names begin."""


def share_of(nodeid: str) -> str:
    """Return what a test belongs to: all tests of one share run in one process, one by one.

    The lab's releases run beside each other, and beside them what wants other machines or is about
    memory for devices, which takes as long as either; to install zoned takes machines of its own.
    The tests on this machine have its cgroups in common; of the others each file is a share.
    """
    path, _, name = nodeid.partition("::")
    if path.startswith("tests/host/"):
        return "host"
    if path.startswith("tests/lab/"):
        parameters = name.partition("[")[2].rstrip("]").split("-")
        release = next((each for each in _RELEASES if each in parameters), "lab")
        apart = (more for start, more in _APART.items() if path.startswith(start))
        return release + next(apart, "")
    return path


def pytest_configure() -> None:
    """Take Ctrl-C as from a terminal: in a shell's background job all that runs ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Share tests out by `share_of`. xdist's own groups get lost with pytest 9."""
    from xdist.scheduler import LoadScopeScheduling

    class ByShare(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return share_of(nodeid)

    return ByShare(config, log)
