# SPDX-License-Identifier: Apache-2.0
"""The libraries of requirements.lock: as wheels for the guest, and installed beforehand.

An emulated machine takes minutes to install them. So the image has an environment that
`scripts/up` finds complete once it is moved to its place; who tests `scripts/up` leaves it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.harness.errors import LabUnavailable
from tests.lab.harness.places import PROJECT, cache_folder

PREPARED = "/opt/zoned.prepared"
_VENV = "/opt/zoned"
_LOCK = PROJECT / "requirements.lock"


def lock_digest() -> str:
    """Return what changes when the libraries do."""
    return hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]


def prepare(tree: Path, python: str) -> None:
    """Install the libraries in the tree of an image, with its own Python, for `PREPARED`.

    Raises LabUnavailable where that fails.
    """
    inside = tree / "opt/wheels"
    shutil.copytree(wheels(python), inside)
    shutil.copy(_LOCK, inside)
    pip = f"{_VENV}/bin/python -m pip install --quiet --no-index --find-links /opt/wheels"
    script = (
        f"python3 -m venv {_VENV} && {pip} --require-hashes --requirement /opt/wheels/{_LOCK.name}"
        f" && cp /opt/wheels/{_LOCK.name} {_VENV}/.lock && mv {_VENV} {PREPARED}"
    )
    command = ["chroot", str(tree), "sh", "-c", script]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    _run(command, "cannot install the libraries in the image", environment)
    shutil.rmtree(inside)


def wheels(python: str) -> Path:
    """Return a directory with the wheels of requirements.lock for a version of Python.

    Downloaded on the host, because the guest has no network, and kept in the lab's cache.
    Raises LabUnavailable where that fails.
    """
    target = cache_folder() / f"wheels-{python}-{lock_digest()}"
    if not target.exists():
        partial = target.with_name(f"building-{target.name}-{os.getpid()}")
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"),
            *("--only-binary", ":all:", "--python-version", python),
            *("--dest", str(partial), "--requirement", str(_LOCK)),
        ]
        try:
            _run(command, "cannot fetch the wheels for the guest")
        except LabUnavailable:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(target)
    return target


def _run(command: list[str], what: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        msg = f"{what}:\n{done.stdout}{done.stderr}"
        raise LabUnavailable(msg)
