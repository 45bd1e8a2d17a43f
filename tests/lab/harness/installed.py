# SPDX-License-Identifier: Apache-2.0
"""Disks of guests with zoned installed, kept in the cache for those that boot later.

To install it takes an emulated machine many times as long as to boot. A disk is good for as long
as the image below it and the files that are installed stay what they are.
"""

import hashlib
import shutil
import time
from pathlib import Path

from tests.lab.harness.image import Image
from tests.lab.harness.install import project_files
from tests.lab.harness.places import PROJECT, cache_folder

_RUN_SECONDS = 2 * 3600
"""No run of the tests takes that long."""


def installed_disk(image: Image) -> Path:
    """Return where the disk is, or is to be, that has on top of an image what is to be tested."""
    return cache_folder() / f"installed-{image.release}-{_digest(image)}.qcow2"


def _digest(image: Image) -> str:
    found = hashlib.sha256(image.folder.name.encode())
    for name in project_files():
        path = PROJECT / name
        if name.startswith("tests/"):
            continue
        found.update(f"{name} {path.stat().st_mode:o} ".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def keep_disk(layer: Path, disk: Path) -> None:
    """Have what a guest wrote as `disk`, and remove those of its release that nobody uses."""
    partial = disk.with_suffix(".partial")
    shutil.copyfile(layer, partial)
    partial.rename(disk)
    release = disk.name.rpartition("-")[0]
    for other in disk.parent.glob(f"{release}-*"):
        if other != disk and time.time() - other.stat().st_mtime > _RUN_SECONDS:
            other.unlink()
