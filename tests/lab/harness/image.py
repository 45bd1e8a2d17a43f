# SPDX-License-Identifier: Apache-2.0
"""Building a guest's image, and the cache of images."""

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.harness.errors import LabUnavailable
from tests.lab.harness.initrd import make_initrd
from tests.lab.harness.libraries import lock_digest, prepare
from tests.lab.harness.places import cache_folder, locked
from tests.lab.harness.recipe import NEWEST, PYTHON, RECIPES, Recipe

logger = logging.getLogger(__name__)

_BUILD_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
_UNUSED_SECONDS = 14 * 24 * 3600
_MIRROR = "http://deb.debian.org/debian"
# The package then depends on another kernel; the one that it depended on stays.
_NEWEST_KERNEL = """set -e
echo "deb {mirror} {suite} main" > "$1/etc/apt/sources.list.d/backports.list"
chroot "$1" apt-get -q update
chroot "$1" apt-get -q -y --no-install-recommends -t {suite} install linux-image-amd64
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A built image: a raw ext4 disk without partitions, and what boots it directly."""

    release: str
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    def kernel(self, name: str) -> Path:
        """One of the recipe's kernels."""
        return self.folder / f"vmlinuz-{name}"

    def initrd(self, name: str) -> Path:
        """What this kernel begins with."""
        return self.folder / f"initrd-{name}"


def get_image(release: str) -> Image:
    """Return the image of `release`, from the cache or built now (a minute or two).

    Raises LabUnavailable where it is not in the cache and cannot be built.
    """
    recipe = RECIPES[release]
    name = f"{release}-{recipe.digest}-{lock_digest()}"
    image = Image(release=release, folder=cache_folder() / name)
    if not image.folder.exists():
        _check_can_build()
        with locked(release):
            if not image.folder.exists():
                _build(recipe, image.folder)
            _prune(release, keep=image.folder)
    os.utime(image.folder)
    return image


def _check_can_build() -> None:
    missing = [package for tool, package in _BUILD_TOOLS.items() if not shutil.which(tool)]
    if missing:
        msg = f"no image yet, and it cannot be built (apt-get install {' '.join(missing)})"
        raise LabUnavailable(msg)
    if os.geteuid() != 0:
        msg = "no image yet, and only root can build it (sudo scripts/lab build)"
        raise LabUnavailable(msg)


def _build(recipe: Recipe, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=_building(recipe.release), dir=target.parent) as name:
        tree, parts = Path(name, "tree"), Path(name, "parts")
        parts.mkdir()
        logger.info("installing Debian %s with mmdebstrap", recipe.release)
        _run(_mmdebstrap(recipe, tree))
        _customise(recipe, tree)
        logger.info("installing the project's libraries")
        prepare(tree, PYTHON[recipe.release])
        logger.info("making the disk")
        versions = kernel_versions(tree)
        if len(versions) != len(recipe.kernels):
            msg = f"{' and '.join(recipe.kernels)} kernels are wanted, and there came {versions}"
            raise LabUnavailable(msg)
        for name, version in zip(recipe.kernels, versions, strict=True):
            initrd = make_initrd(tree, version, recipe.modules, recipe.init)
            (parts / f"initrd-{name}").write_bytes(initrd)
            (tree / "boot" / f"vmlinuz-{version}").rename(parts / f"vmlinuz-{name}")
        shutil.rmtree(tree / "boot")
        (tree / "boot").mkdir()
        disk = [str(parts / "disk.img"), f"{recipe.disk_size}M"]
        _run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), *disk])
        parts.rename(target)


def kernel_versions(tree: Path) -> list[str]:
    """Return the kernels of an installed system, oldest first."""
    names = [folder.name for folder in (tree / "usr/lib/modules").iterdir()]
    return sorted(names, key=lambda name: [int(word) for word in re.findall(r"\d+", name)])


def _mmdebstrap(recipe: Recipe, tree: Path) -> list[str]:
    """Without a mirror mmdebstrap takes Debian's own, with updates and security."""
    mirror = os.environ.get("ZONED_LAB_MIRROR")
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=apt",
        "--aptopt=APT::Install-Recommends false",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f"--include={','.join(recipe.packages)}",
    ]
    if NEWEST in recipe.kernels:
        hook = _NEWEST_KERNEL.format(mirror=mirror or _MIRROR, suite=f"{recipe.release}-backports")
        command.append(f"--customize-hook={hook}")
    return [*command, recipe.release, str(tree), *([mirror] if mirror else [])]


def _customise(recipe: Recipe, tree: Path) -> None:
    for name, text in recipe.files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for unit in recipe.masked:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (tree / "mnt/host").mkdir()
    for folder in ("etc", "var"):
        # systemd-update-done.service(8): the caches are as new as /usr.
        (tree / folder / ".updated").touch()


def _run(command: list[str]) -> None:
    # mmdebstrap and mke2fs live in sbin as well, and a foreign PYTHONPATH confuses maintainer
    # scripts inside the new system.
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for name in ("http_proxy", "https_proxy", "no_proxy", "TMPDIR"):
        if name in os.environ:
            environment[name] = os.environ[name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        msg = f"{command[0]} failed with status {done.returncode}:\n{done.stdout}{done.stderr}"
        raise LabUnavailable(msg)


def _building(release: str) -> str:
    return f"building-{release}-"


def _prune(release: str, keep: Path) -> None:
    """Remove images that nobody has booted for two weeks, and leftovers of killed builds.

    Of this release alone: another one may just be built.
    """
    for folder in keep.parent.iterdir():
        old = time.time() - folder.stat().st_mtime > _UNUSED_SECONDS
        left = folder.name.startswith(_building(release))
        if folder.is_dir() and folder != keep and (old or left):
            shutil.rmtree(folder)
