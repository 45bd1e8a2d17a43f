# SPDX-License-Identifier: Apache-2.0
"""Installing the project in a guest as a user does, from its sources and its lock file."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.harness.errors import LabUnavailable
from tests.lab.harness.guest import Guest
from tests.lab.harness.image import cache_folder
from tests.lab.harness.recipe import PYTHON

PROJECT = Path(__file__).parents[3]
GUEST_PROJECT = "/mnt/host/zoned"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt/host/wheels"}
"""What makes pip in the guest content with the wheels that the host fetched."""

_UP_SECONDS = 600


def install_zoned(guest: Guest, release: str) -> str:
    """Run `scripts/up` in the guest, and return what it printed."""
    copy_sources(guest.share / "zoned")
    shutil.copytree(wheels(PYTHON[release]), guest.share / "wheels", dirs_exist_ok=True)
    return guest.check(
        [f"{GUEST_PROJECT}/scripts/up"], env=OFFLINE, cwd=GUEST_PROJECT, timeout=_UP_SECONDS
    )


def copy_sources(target: Path) -> None:
    """Copy the project without what git ignores; uncommitted files come along."""
    git = ["git", "-c", f"safe.directory={PROJECT}", "-C", str(PROJECT)]
    listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    for name in names.rstrip("\0").split("\0"):
        source, copy = PROJECT / name, target / name
        if source.exists():  # and is not just removed from the working tree
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def wheels(python: str) -> Path:
    """Return a directory with the wheels of requirements.lock for a version of Python.

    Downloaded on the host, because the guest has no network, and kept in the lab's cache.
    Raises LabUnavailable where that fails.
    """
    lock = PROJECT / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    target = cache_folder() / f"wheels-{python}-{digest}"
    if not target.exists():
        partial = target.with_name(f"building-{target.name}-{os.getpid()}")
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"),
            *("--only-binary", ":all:", "--python-version", python),
            *("--dest", str(partial), "--requirement", str(lock)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(partial, ignore_errors=True)
            msg = f"cannot fetch the wheels for the guest:\n{done.stdout}{done.stderr}"
            raise LabUnavailable(msg)
        partial.rename(target)
    return target
