# SPDX-License-Identifier: Apache-2.0
"""Installing the project in a guest as a user does, from its sources and its lock file."""

import shutil
import subprocess
from pathlib import Path

from tests.lab.harness.guest import Guest
from tests.lab.harness.libraries import PREPARED, wheels
from tests.lab.harness.places import PROJECT
from tests.lab.harness.recipe import PYTHON

GUEST_PROJECT = "/mnt/host/zoned"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt/host/wheels"}
"""What makes pip in the guest content with the wheels that the host fetched."""

_UP_SECONDS = 600


def install_zoned(guest: Guest, release: str, *, fresh: bool = False) -> str:
    """Run `scripts/up` in the guest, and return what it printed.

    Unless it is to be `fresh` it has the libraries already, which take an emulated one minutes, and
    goes without the tour.
    """
    share_sources(guest, release)
    options = [] if fresh else ["--no-tour"]
    if not fresh:
        guest.check(["mv", PREPARED, "/opt/zoned"])
    up = [f"{GUEST_PROJECT}/scripts/up", *options]
    return guest.check(up, env=OFFLINE, cwd=GUEST_PROJECT, timeout=_UP_SECONDS)


def share_sources(guest: Guest, release: str) -> None:
    """Let the guest see what to install zoned from."""
    copy_sources(guest.share / "zoned")
    shutil.copytree(wheels(PYTHON[release]), guest.share / "wheels", dirs_exist_ok=True)


def copy_sources(target: Path) -> None:
    """Copy the project without what git ignores; uncommitted files come along."""
    for name in project_files():
        source, copy = PROJECT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)


def project_files() -> list[str]:
    """Return the names of all files that git does not ignore, in order."""
    git = ["git", "-c", f"safe.directory={PROJECT}", "-C", str(PROJECT)]
    listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    # One that was just removed from the working tree is still listed.
    return sorted(name for name in set(names.split("\0")) if name and (PROJECT / name).exists())
