# SPDX-License-Identifier: Apache-2.0
"""Disks with zoned installed: made once, and good for as long as what is installed is the same."""

import os
import time
from pathlib import Path
from typing import cast

import pytest

from tests.lab.harness import installed
from tests.lab.harness.guest import Guest
from tests.lab.harness.image import Image
from tests.lab.harness.installed import installed_disk, keep_disk
from tests.lab.harness.lab import Lab

RELEASE = "trixie"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("ZONED_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a file that is installed and one of its tests."""
    folder = tmp_path / "project"
    (folder / "tests").mkdir(parents=True)
    (folder / "code.py").write_text("1")
    (folder / "tests/test_code.py").write_text("1")
    monkeypatch.setattr(installed, "PROJECT", folder)
    monkeypatch.setattr(installed, "project_files", lambda: ["code.py", "tests/test_code.py"])
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(release=RELEASE, folder=tmp_path / "trixie-1")


def test_another_disk_where_anything_differs(project: Path, image: Image, tmp_path: Path) -> None:
    disk = installed_disk(image)
    assert installed_disk(image) == disk
    (project / "tests/test_code.py").write_text("2")
    assert installed_disk(image) == disk
    (project / "code.py").write_text("2")
    other = installed_disk(image)
    (project / "code.py").chmod(0o755)
    found = {
        disk,
        other,
        installed_disk(image),
        installed_disk(Image(release=RELEASE, folder=tmp_path / "trixie-2")),
    }
    assert len(found) == 4


def test_disks_that_nobody_uses_go(cache: Path, tmp_path: Path) -> None:
    for name in ("trixie-old", "trixie-young", "bookworm-old"):
        (cache / f"installed-{name}.qcow2").touch()
    long_ago = time.time() - 3 * 3600
    for old in cache.glob("*old*"):
        os.utime(old, (long_ago, long_ago))
    (tmp_path / "layer").write_text("what was installed")
    keep_disk(tmp_path / "layer", cache / "installed-trixie-new.qcow2")
    left = {path.stem.partition("-")[2] for path in cache.iterdir()}
    assert left == {"trixie-new", "trixie-young", "bookworm-old"}
    assert (cache / "installed-trixie-new.qcow2").read_text() == "what was installed"


class FakeGuest:
    """Has a disk, with what was installed last."""

    def __init__(self, folder: Path, *, installed: bool) -> None:
        self.facts = {"installed": installed}
        self._disk = folder / "layer"
        self.ended = False

    def install(self) -> None:
        self._disk.write_text("zoned")

    def keep_disk(self) -> Path:
        return self._disk

    def close(self) -> None:
        self.ended = True


def test_zoned_is_installed_once_and_tested_on_another_boot(
    project: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):  # as by two processes
        lab = Lab(tmp_path)
        monkeypatch.setattr(lab, "_image", lambda _: image)
        booted: list[FakeGuest] = []

        def get(booted: list[FakeGuest] = booted) -> Guest:
            booted.append(FakeGuest(tmp_path, installed=installed_disk(image).exists()))
            return cast("Guest", booted[-1])

        found = lab.installed(RELEASE, get, lambda guest: cast("FakeGuest", guest).install())
        assert cast("FakeGuest", found) is booted[-1]
        assert found.facts["installed"]
        assert [each.ended for each in booted] == [[True, False], [False]][number]
        assert installed_disk(image).read_text() == "zoned"
